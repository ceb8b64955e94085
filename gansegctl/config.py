"""Settings of each stage: frozen, checked when made, refused when a key is unknown, named by a digest.

Precedence, lowest first: defaults here, the preset, the flags.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from gansegctl.errors import UsageError, did_you_mean

T = TypeVar("T")
_RECENT = {"omit": True}  # not written at its default, so that datasets of before it was there can be gone on with


@dataclass(frozen=True)
class GenerateSettings:
    """What determines the samples of a dataset. batch_size is part of it: other batches round differently.

    precision: fp16 | bf16 of the largest blocks. compile: by torch.compile, which rounds otherwise. keep_below: only
    samples of a lower score. until: samples wanted that show a class, by its name; no more are made.
    probabilities: of every class are kept beside the masks.
    """

    generator: str = "demo"
    seeds: str = "0-999"
    truncation: float = 1.0
    truncation_cutoff: int | None = None
    class_index: int | None = None
    noise: str = "const"
    batch_size: int = 16
    shard_size: int = 0  # samples; 0 = by bytes
    codec: str = field(default="deflate", metadata=_RECENT)
    keep_below: float | None = field(default=None, metadata=_RECENT)
    until: dict[str, int] = field(default_factory=dict, metadata=_RECENT)
    precision: str = field(default="fp32", metadata=_RECENT)
    compile: bool = field(default=False, metadata=_RECENT)
    probabilities: bool = field(default=False, metadata=_RECENT)

    def __post_init__(self) -> None:
        _positive(self, "batch_size")
        if self.codec not in ("deflate", "none", "delta", "zstd"):
            raise UsageError(f"got codec {self.codec!r}", wanted="deflate | none | delta | zstd")
        if self.precision not in ("fp32", "fp16", "bf16"):
            raise UsageError(f"got precision {self.precision!r}", wanted="fp32 | fp16 | bf16")
        wrong = {k: v for k, v in self.until.items() if not isinstance(v, int) or v < 1}
        if wrong:
            raise UsageError(f"got until {wrong}", wanted="a class and a number of samples from 1, as in eyes:500")
        if self.shard_size < 0:
            raise UsageError(f"got shard_size {self.shard_size}", wanted="at least 1, or 0 to choose by bytes")
        if self.noise not in ("const", "seed", "none"):
            raise UsageError(f"got noise {self.noise!r}", wanted="const | seed | none")


@dataclass(frozen=True)
class AnnotateSettings:
    """How masks are made. `method` holds a table of that method's own settings under `options`."""

    shots: int = 1
    method: str = "oneshot"
    seed: int = 0
    masks: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    probabilities: bool = field(default=False, metadata=_RECENT)  # of every class are kept beside the masks

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise UsageError(f"got --shots {self.shots}", wanted="0 (unsupervised methods) or more")


@dataclass(frozen=True)
class DistillSettings:
    """How a student is trained on a dataset.

    soft: on the segmenter's probabilities instead of its masks, both softened by `temperature` (Hinton et al. 2015).
    """

    arch: str = "unet"
    epochs: int = 10
    steps: int = 0
    batch_size: int = 32  # of all processes together
    accumulate: int = 1  # passes that a batch is cut into
    lr: float = 4e-3
    precision: str = "fp32"
    seed: int = 0
    augment: str = "full"  # full | light (no rotation, shift or scale) | none
    drop_uncertain: float = 0.0  # share of samples left out, those with the highest scores
    ignore_below: int = 0  # pixels of less confidence (0-255) are not learned from
    soft: bool = field(default=False, metadata=_RECENT)
    temperature: float = field(default=1.0, metadata=_RECENT)

    def __post_init__(self) -> None:
        _positive(self, "epochs", "batch_size", "accumulate")
        if self.augment not in ("full", "light", "none"):
            raise UsageError(f"got augment {self.augment!r}", wanted="full | light | none")
        if not 0 <= self.drop_uncertain < 1:
            raise UsageError(f"got --drop-uncertain {self.drop_uncertain}", wanted="a share from 0 to below 1")
        if not self.temperature > 0:
            raise UsageError(f"got --temperature {self.temperature}", wanted="a positive number; 1 changes nothing")
        if self.temperature != 1 and not self.soft:
            raise UsageError(
                f"got --temperature {self.temperature} without --soft",
                wanted="probabilities to soften",
                remedy="pass --soft, with a dataset that was made with --probabilities",
            )
        if not 0 <= self.ignore_below <= 255:
            raise UsageError(f"got --ignore-below {self.ignore_below}", wanted="a confidence from 0 to 255")


@dataclass(frozen=True)
class EvalSettings:
    """How a subject is scored."""

    trimap: int = 3
    bootstrap: int = 1000
    num: int = 300

    def __post_init__(self) -> None:
        _positive(self, "trimap", "num")


def from_dict(cls: type[T], values: dict[str, Any], where: str = "settings") -> T:
    """A settings object from a table. UsageError names an unknown key by its path, or a value of the wrong type."""
    if not isinstance(values, dict):
        raise UsageError(f"got {where} = {values!r}", wanted="a table")
    known = {f.name: f for f in fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"got unknown key {where}.{key}", wanted="a known one", remedy=did_you_mean(key, known))
        _check_type(f"{where}.{key}", str(known[key].type), value)
    return cls(**values)


def to_dict(settings: Any) -> dict[str, Any]:
    """The table that `from_dict` reads."""
    quiet = {
        f.name for f in fields(settings) if f.metadata.get("omit") and getattr(settings, f.name) in (f.default, {})
    }
    return {k: v for k, v in asdict(settings).items() if k not in quiet}


def _check_type(where: str, declared: str, value: Any) -> None:
    allowed: tuple[type, ...] = ()
    kinds = (
        ("int", (int,)),
        ("float", (int, float)),
        ("str", (str,)),
        ("dict", (dict,)),
        ("bool", (bool,)),
        ("tuple", (list, tuple)),
    )
    for word, types in kinds:
        if word in declared:
            allowed += types
    if value is None and "None" in declared:
        return
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise UsageError(f"got {where} = {value!r}", wanted=declared)


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise UsageError(f"got {name} {getattr(settings, name)}", wanted="at least 1")
