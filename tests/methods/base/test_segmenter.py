"""Every segmenter: its repr, its refusals, and that no method imports another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers.methods.contract import LABELS
from helpers.methods.tiny_generator import TinyGenerator, exemplars_of

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.methods.linear import Linear, LinearSettings
from gansegctl.methods.stylemix.method import StyleMix

METHODS = Path(methods.__file__).parent


def test_its_repr_says_method_classes_sizes_and_parameters_in_one_line():
    generator = TinyGenerator()
    segmenter = Linear().fit(generator, exemplars_of(generator, (3,)), LABELS, LinearSettings(steps=2))
    assert repr(segmenter) == "LinearSegmenter(linear, 3 classes, 3 taps of 19 channels, 60 parameters)"
    segmenter.labels = LabelMap(("only",))
    assert ", 1 class, " in repr(segmenter)
    assert repr(StyleMix().fit(generator)) == "StyleMixSegmenter(stylemix, 2 classes, no taps, 0 parameters)"


def test_exemplars_without_classes_are_refused():
    generator = TinyGenerator()
    with pytest.raises(UsageError, match="exemplars without classes"):
        Linear().fit(generator, exemplars_of(generator, (3,)), None)


def test_no_method_imports_another_method():
    """Shared parts are in base/: a method may be read, changed or removed without the others."""
    names = {p.stem for p in METHODS.iterdir() if p.name not in ("base", "__init__.py", "__pycache__")}
    assert len(names) == len(methods.METHODS)
    for path in METHODS.rglob("*.py"):
        own = path.relative_to(METHODS).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gansegctl.methods."):
                room = node.module.split(".")[2]
                assert room in ("base", own), f"{path.name} imports {node.module}"
