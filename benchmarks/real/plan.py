"""The plan of a data set for `make bench-real`, its two splits, and the settings that decide a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.generators.inversion.search import InversionSettings
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.real_images import RealSettings
from gansegctl.pipeline.inputs.labelled_sets import load_labelled
from gansegctl.pipeline.project.projector import ProjectSettings
from gansegctl.students.student import Student

TRAINED = ("network", "training", "grow")
"""Of a plan: what the generator depends on, beside the data and the resolution."""
DETERMINING = ("unit", "slices", "candidates", "samples", "student_steps", "project", "limits", "options")
"""Of a plan: what a row depends on beside the generator, and what does not show in the row."""
SOURCES = ("real", "chosen", "sampled")


@dataclass(frozen=True)
class Plan:
    """Measurements on one file. unit "patient": a shot is `slices` annotated slices of one patient.

    candidates: images among which `chosen` shots are chosen. project: exemplars are searched to the end, without the
    early stop that suits many images.
    """

    name: str
    data: Path
    work: Path
    resolution: int = 0  # 0 = the file's; else images are reduced by means of whole blocks
    unit: str = "image"
    slices: int = 4
    candidates: int = 30
    shots: tuple[int, ...] = (1, 5, 10)
    sources: tuple[str, ...] = SOURCES
    methods: tuple[str, ...] = tuple(methods.METHODS)
    options: dict = field(default_factory=dict)  # method → settings of its own
    supervised: tuple[int, ...] = (1, 5, 10, 50, 200, 0)  # 0 = all
    draws: int = 3
    samples: int = 5000
    student_steps: int = 1500
    network: dict = field(default_factory=lambda: {"channel_base": 2048, "channel_max": 128})
    training: dict = field(default_factory=lambda: {"images": 300_000, "augment": "ada", "lr_decay": 0.2})
    grow: dict = field(default_factory=dict)  # how the generator is trained at half the size first, where it is
    project: ProjectSettings = field(
        default_factory=lambda: ProjectSettings(inversion=InversionSettings(steps=400, patience=400))
    )
    limits: RealSettings = field(default_factory=RealSettings)
    device: str = "cpu"
    compiled: bool = False


# Both profiles occur in lpc64, so mirrored figures belong to it. In 30 passes over 10,000 images a discriminator does
# not learn them by heart, and turned and resampled pixel art would be learned as such. Hearts are few, none mirrored.
PLANS: dict[str, dict[str, Any]] = {
    "lpc64": {
        "network": {"channel_base": 1024, "channel_max": 64},  # a third of the usual work an image, for a CPU
        "training": {"images": 300_000, "batch_size": 16, "mirror": True, "r1": 5.0, "lr_decay": 0.2},
        "grow": {"images": 150_000, "r1": 1.25, "lr_decay": 0.0},  # R1's weight goes with the number of pixels
    },
    "acdc128": {"unit": "patient"},
    "acdc128-64": {  # reduced, for a CPU
        "unit": "patient",
        "network": {"channel_base": 1024, "channel_max": 64},
        "training": {"images": 100_000, "batch_size": 16, "augment": "ada", "r1": 2.0, "lr_decay": 0.2},
        "grow": {"images": 50_000, "r1": 0.5, "lr_decay": 0.0},
    },
}
"""By NAME, or NAME-RESOLUTION where the images are reduced."""


@dataclass
class Split:
    """Images uint8 [N,H,W,c], masks uint8 [N,H,W] and, where an image is of somebody, of whom."""

    image: np.ndarray
    mask: np.ndarray
    group: np.ndarray


class Measured(Protocol):
    """The parts of `bench.Bench` that shots and report use; it is made of them."""

    plan: Plan
    device: str
    folder: Path
    rows: list[dict]
    train: Split
    test: Split
    labels: LabelMap

    def row(self, **key: Any) -> dict | None:
        """The row of that key."""

    def order(self, draw: int) -> np.ndarray:
        """The training images of a draw."""

    def images(self, step: int = 1) -> Path:
        """The train split's images alone, as a file."""

    def supervised(self, count: int, draw: int) -> Student:
        """The student of `count` annotated training images (0: all)."""


def load(plan: Plan) -> tuple[Split, Split, LabelMap]:
    """The train and the test split, at the plan's resolution. UsageError where it does not divide the file's."""
    whole = load_labelled(plan.data)
    image, mask, labels = whole.image, whole.mask, whole.labels
    with h5py.File(plan.data, "r") as f:
        split = f["split"][:]
        group = f["patient"][:] if "patient" in f else np.arange(len(split))
    side = image.shape[1]
    if plan.resolution and plan.resolution != side:
        if side % plan.resolution:
            raise UsageError(f"got --resolution {plan.resolution}", wanted=f"a divisor of the file's {side}")
        step = side // plan.resolution
        image = reduced(image, step)
        mask = mask[:, step // 2 :: step, step // 2 :: step]
    return *(Split(image[split == v], mask[split == v], group[split == v]) for v in (0, 1)), labels


def reduced(image: np.ndarray, step: int) -> np.ndarray:
    """uint8 [N,H,W,c] → [N,H/step,W/step,c]: the means of whole blocks."""
    n, h, w, c = image.shape
    return np.rint(image.reshape(n, h // step, step, w // step, step, c).mean(axis=(2, 4))).astype(np.uint8)


def flat(table: dict, above: str = "") -> Iterator[tuple[str, Any]]:
    """("project.inversion.steps", 200) and so on of tables in tables."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value
