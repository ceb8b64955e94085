"""Settings of each stage: frozen, checked when made, refused when a key is unknown, named by a digest.

Precedence, lowest first: defaults here, the preset, the flags.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from gansegctl.choices import CODECS, NOISE_MODES, PRECISIONS, STUDENT_PRECISIONS, VARIATIONS
from gansegctl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_WHERE_ASKED = {"omit": True}
"""Of a field that is written only where it is not at its default: it names no dataset that was made without it."""


@dataclass(frozen=True)
class GenerateSettings:
    """Settings that determine the samples of a dataset. batch_size is one of them: other batches round differently."""

    generator: str = "demo"  # name of a preset, or file
    seeds: str = "0-999"
    truncation: float = 1.0  # ψ; 1 = none
    truncation_cutoff: int | None = None  # leading ws that are truncated; None = all
    class_index: int | None = None  # of a conditional generator
    noise: str = "const"  # const | seed | none
    batch_size: int = 16
    shard_size: int = 0  # samples; 0 = by bytes
    codec: str = field(default="deflate", metadata=_WHERE_ASKED)
    keep_below: float | None = field(default=None, metadata=_WHERE_ASKED)  # only samples of a lower score are kept
    until: dict[str, int] = field(default_factory=dict, metadata=_WHERE_ASKED)  # class → samples wanted that show it
    precision: str = field(default="fp32", metadata=_WHERE_ASKED)  # of the largest blocks
    compile: bool = field(default=False, metadata=_WHERE_ASKED)  # by torch.compile, which rounds differently
    probabilities: bool = field(default=False, metadata=_WHERE_ASKED)  # of every class are kept beside the masks

    def __post_init__(self) -> None:
        _positive(self, "batch_size")
        _one_of(self, "codec", CODECS)
        _one_of(self, "precision", PRECISIONS)
        _one_of(self, "noise", NOISE_MODES)
        wrong = {k: v for k, v in self.until.items() if not isinstance(v, int) or v < 1}
        if wrong:
            raise UsageError(f"got until {wrong}", wanted="a class and a number of samples from 1, as in eyes:500")
        if self.shard_size < 0:
            raise UsageError(f"got shard_size {self.shard_size}", wanted="at least 1, or 0 to choose by bytes")


@dataclass(frozen=True)
class AnnotateSettings:
    """How masks are made."""

    shots: int = 1  # annotated exemplars; 0 for unsupervised methods
    method: str = "oneshot"
    seed: int = 0  # of the fit
    masks: str = ""  # folder or file of masks, or a preset that brings some; "" = they are still to be painted
    options: dict[str, Any] = field(default_factory=dict)  # the method's own settings
    probabilities: bool = field(default=False, metadata=_WHERE_ASKED)  # of every class are kept beside the masks

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise UsageError(f"got --shots {self.shots}", wanted="0 (unsupervised methods) or more")


@dataclass(frozen=True)
class LearningSettings:
    """How a student learns, whoever trains it: what `DistillSettings` and `StudentSettings` have in common."""

    arch: str = "unet"  # unet | deeplabv3
    epochs: int = 10  # passes over the pairs
    steps: int = 0  # in place of epochs, where not 0
    batch_size: int = 32  # pairs a step, of all processes together
    accumulate: int = 1  # parts a batch is cut into, to fit into memory
    lr: float = 4e-3  # peak learning rate
    precision: str = "fp32"  # fp32 | bf16 | fp64
    seed: int = 0
    temperature: float = field(default=1.0, metadata=_WHERE_ASKED)  # of soft targets; above 1 is softer

    def __post_init__(self) -> None:
        _positive(self, "batch_size")
        if self.accumulate < 1:
            raise UsageError(f"got --accumulate {self.accumulate}", wanted="at least 1")
        if self.epochs < 1 and self.steps < 1:
            raise UsageError(f"got {self.epochs} epochs and {self.steps} steps", wanted="at least 1 of one of them")
        _one_of(self, "precision", STUDENT_PRECISIONS)

    def learning(self) -> dict[str, Any]:
        """The fields of `LearningSettings` alone, as arguments of another class that has them."""
        return {f.name: getattr(self, f.name) for f in fields(LearningSettings)}


@dataclass(frozen=True)
class DistillSettings(LearningSettings):
    """How a student is trained on a dataset."""

    augment: str = "full"  # full | light (no rotation, shift or scale) | none
    drop_uncertain: float = 0.0  # share of samples left out, those with the highest scores
    ignore_below: int = 0  # pixels of less confidence (0-255) are not learned from
    soft: bool = field(default=False, metadata=_WHERE_ASKED)  # learn probabilities, not masks (Hinton et al. 2015)

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "epochs")
        _one_of(self, "augment", VARIATIONS)
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

    trimap: int = 3  # pixels: width of the band along boundaries
    bootstrap: int = 1000  # resamples for intervals; 0 = no intervals
    num: int = 300  # fresh samples that a segmenter is scored on

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


def to_dict(settings: DataclassInstance) -> dict[str, Any]:
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


def _one_of(settings: DataclassInstance, name: str, known: tuple[str, ...]) -> None:
    if getattr(settings, name) not in known:
        raise UsageError(f"got {name} {getattr(settings, name)!r}", wanted=" | ".join(known))


def _positive(settings: DataclassInstance, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise UsageError(f"got {name} {getattr(settings, name)}", wanted="at least 1")
