"""`score < 0.2 and eyes > 0.01`: which samples to keep. A parser of our own: nothing typed is ever evaluated."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence

from gansegctl.errors import UsageError, did_you_mean

WANTED = "comparisons of score, seed, class shares (0 to 1) and numbers, joined by and, or, not, ()"
LONGEST, DEEPEST = 2000, 40
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?P<name>[^\W\d]\w*)"
    r"|\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<sign><=|>=|==|!=|<|>|\(|\)))"
)

Test = Callable[[Mapping[str, float]], bool]
Value = Callable[[Mapping[str, float]], float]


class Condition:
    """A parsed condition; `keeps` takes a table of values, in which a class's share stands under "class:NAME".

    A bare name is score, seed or a class; one in quotes is always a class. `names`: the keys it asks for.
    Errors: UsageError, with the place, for anything else.
    """

    def __init__(self, text: str, classes: Sequence[str]) -> None:
        self.text, self.classes = text, tuple(classes)
        self.names: set[str] = set()
        if len(text) > LONGEST:
            raise UsageError(f"got a condition of {len(text)} characters", wanted=f"at most {LONGEST}")
        self._tokens = self._split(text)
        self._at, self._depth = 0, 0
        self._test = self._either()
        if self._at < len(self._tokens):
            raise self._error()

    def keeps(self, values: Mapping[str, float]) -> bool:
        """Whether the condition holds."""
        return self._test(values)

    def _split(self, text: str) -> list[tuple[str, str, int]]:
        tokens, at, end = [], 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                raise UsageError(f"got --where {text!r}: {text[at:].strip()!r} at {at}", wanted=WANTED)
            kind = match.lastgroup or ""
            tokens.append((kind, match.group(kind), match.start(kind)))
            at = match.end()
        return tokens

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at][:2] if self._at < len(self._tokens) else ("end", "")

    def _take(self, *words: str) -> str | None:
        kind, word = self._peek()
        if kind in ("name", "sign") and word in words:
            self._at += 1
            return word
        return None

    def _error(self) -> UsageError:
        kind, word = self._peek()
        place = f"{word!r} at {self._tokens[self._at][2]}" if kind != "end" else "its end too early"
        return UsageError(f"got --where {self.text!r}: {place}", wanted=WANTED)

    def _either(self) -> Test:
        tests = [self._both()]
        while self._take("or"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda v: any(t(v) for t in tests)

    def _both(self) -> Test:
        tests = [self._not()]
        while self._take("and"):
            tests.append(self._not())
        return tests[0] if len(tests) == 1 else lambda v: all(t(v) for t in tests)

    def _not(self) -> Test:
        self._depth += 1
        if self._depth > DEEPEST:
            raise UsageError(f"got --where nested over {DEEPEST} deep", wanted=WANTED)
        if self._take("not"):
            inner = self._not()
            test: Test = lambda v: not inner(v)  # noqa: E731
        elif self._take("("):
            test = self._either()
            if not self._take(")"):
                raise self._error()
        else:
            test = self._comparison()
        self._depth -= 1
        return test

    def _comparison(self) -> Test:
        left, steps = self._operand(), []
        while sign := self._take(*COMPARE):
            steps.append((COMPARE[sign], self._operand()))
        if not steps:
            raise self._error()

        def test(values: Mapping[str, float]) -> bool:
            value = left(values)
            for holds, right in steps:
                other = right(values)
                if not holds(value, other):
                    return False
                value = other
            return True

        return test

    def _operand(self) -> Value:
        kind, word = self._peek()
        if kind == "number":
            self._at += 1
            number = float(word)
            return lambda _: number
        if kind not in ("name", "double", "single") or (kind == "name" and word in ("and", "or", "not")):
            raise self._error()
        self._at += 1
        key = word if kind == "name" and word in ("score", "seed") else f"class:{word}"
        if key.startswith("class:") and word not in self.classes:
            known = ("score", "seed", *self.classes)
            raise UsageError(
                f"got --where {self.text!r}: unknown name {word!r}", wanted=WANTED, remedy=did_you_mean(word, known)
            )
        self.names.add(key)
        return lambda values: values[key]
