"""The stage `eval`: a subject (dataset, segmenter or student) against a truth, into a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gansegctl import methods, presets
from gansegctl.config import EvalSettings
from gansegctl.errors import UsageError
from gansegctl.evaluate.matching import are_segments, match_segments, overlap_of
from gansegctl.evaluate.report import Report, score
from gansegctl.io import tensors
from gansegctl.io.atomic import write_text
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.pipeline.inputs.generators import grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.inputs.labelled_sets import LabelledSet, load_labelled
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.store.manifest import NAME
from gansegctl.students.student import KIND as STUDENT
from gansegctl.students.student import Student, predict_masks

Rows = Iterator[tuple[np.ndarray, ...]]
"""(predicted, truth, image[, uncertainty of each sample[, confidence of each pixel]])."""
BATCH = 50


SAME_IMAGE = 2.0
"""Grey levels, on average over an image, by which rendering it on another device may change it."""


def kind_of(path: Path) -> str:
    """ "dataset", "student", "segmenter" or "labelled" (an HDF5 file or folder of pairs)."""
    if path.is_dir():
        return "dataset" if (path / NAME).is_file() else "labelled"
    if path.suffix != ".safetensors":
        return "labelled"
    try:
        if tensors.read_header(path).get("kind") == STUDENT:
            return "student"
    except (OSError, ValueError):  # the reader below says what is wrong with it
        pass
    methods.read_header(path)
    return "segmenter"


def truth_path(name_or_file: str) -> tuple[Path, str]:
    """A path and its kind; a preset's name stands for the reference segmenter it brings."""
    if name_or_file in presets.names() and not Path(name_or_file).exists():
        reference = presets.load(name_or_file).get("reference_segmenter")
        if not reference:
            raise UsageError(f"got preset {name_or_file!r}, which brings no reference segmenter", wanted="a truth")
        return presets.resource(reference["weights"]), "student"
    path = Path(name_or_file)
    if not path.exists():
        raise UsageError(f"got {path}: no such file or folder", wanted="a truth", remedy="check --against")
    return path, kind_of(path)


def _check_images(own: np.ndarray, truth: np.ndarray) -> None:
    """UsageError unless masks that are compared sample by sample are of the same images, but for rounding."""
    for i, (a, b) in enumerate(zip(own, truth, strict=True)):
        if a.shape != b.shape or np.abs(a.astype(np.int16) - b).mean() > SAME_IMAGE:
            raise UsageError(
                f"got images that are not those of the truth, first at sample {i}",
                wanted="a dataset of the very images that the truth labels",
                remedy="distill a student to score on other images, or pass a reference segmenter as --against",
            )


def evaluate(
    subject: Path,
    against: str,
    settings: EvalSettings,
    generator: str | None = None,
    seeds: list[int] | None = None,
    split: int | None = None,
    device: str = "cpu",
) -> Report:
    """Score a subject.

    dataset × reference segmenter: its masks against the reference's on the same images. dataset × labelled set: sample
    by sample. student × labelled set: predictions on its images, of the student's channels where they are files.
    segmenter × reference segmenter: on samples of `generator` made for it.
    Clusters without names are matched to classes, and two-part masks score the truth in two parts: see `aligned`.
    Errors: UsageError for pairs of another kind, other classes, or a missing subject.
    """
    if not subject.exists():
        raise UsageError(f"got {subject}: no such file or folder", wanted="a dataset, segmenter or student")
    truth_file, truth_kind = truth_path(against)
    subject_kind, truth_error = kind_of(subject), None
    if truth_kind == "student":
        reference = Student.load(truth_file, device)
        labels, truth_error = reference.labels, reference.facts.get("held_out")
        if subject_kind == "segmenter":
            own_labels = methods.load(subject).labels
            rows = _segmenter_rows(subject, reference, generator, seeds or list(range(settings.num)), device)
        elif subject_kind == "dataset":
            own = load_labelled(subject)
            own_labels, rows = own.labels, _reference_rows(own, reference, settings.num)
        else:
            raise UsageError(f"got a {subject_kind} against a reference segmenter", wanted="a dataset or a segmenter")
    elif subject_kind == "student":
        student = Student.load(subject, device)
        truth = load_labelled(truth_file, split=split, channels=student.channels)
        labels, own_labels, rows = truth.labels, student.labels, _student_rows(student, truth)
    elif subject_kind == "dataset":
        truth, own = load_labelled(truth_file, split=split), load_labelled(subject)
        labels, own_labels, rows = truth.labels, own.labels, _dataset_rows(own, truth)
    else:
        raise UsageError(f"got a {subject_kind} against labelled images", wanted="a student or a dataset")
    of_truth = labels.names
    rows, labels, matched = aligned(rows, own_labels, labels)
    report = score(
        rows,
        labels,
        subject=str(subject),
        truth=against,
        trimap_width=settings.trimap,
        bootstrap=settings.bootstrap,
        truth_error=truth_error if labels.names == of_truth else None,
    )
    report.matched = matched
    return report


def write_report(report: Report, folder: Path) -> list[Path]:
    """report.json and what `Report.write_images` draws in `folder`; returns their paths."""
    files = report.write_images(folder)
    path = folder / "report.json"
    write_text(path, json.dumps(report.to_json(), indent=1) + "\n")
    return [path, *files]


def _slices(data: LabelledSet, limit: int | None = None) -> Iterator[slice]:
    count = min(len(data.image), limit or len(data.image))
    return (slice(i, min(i + BATCH, count)) for i in range(0, count, BATCH))


def _dataset_rows(own: LabelledSet, truth: LabelledSet) -> Rows:
    if own.mask.shape != truth.mask.shape:
        raise UsageError(f"got masks {own.mask.shape}", wanted=f"{truth.mask.shape}, sample by sample")
    _check_images(own.image, truth.image)
    return ((own.mask[i], truth.mask[i], own.image[i], *_certainty(own, i)) for i in _slices(own))


def _reference_rows(own: LabelledSet, reference: Student, limit: int) -> Rows:
    for i in _slices(own, limit):
        yield own.mask[i], predict_masks(reference, own.image[i]), own.image[i], *_certainty(own, i)


def _segmenter_rows(path: Path, reference: Student, generator: str | None, seeds: list[int], device: str) -> Rows:
    if generator is None:
        raise UsageError("got a segmenter without a generator", wanted="--generator", remedy="pass the one it is for")
    segmenter, network = methods.load(path), open_generator(generator, device)
    for batch in grouped(seeds, BATCH):
        ws = latents_of_seeds(network, batch, device=device)
        image, annotation = image_and_mask(network, ws, batch, "const", segmenter)
        certainty = (annotation.score.cpu().numpy(), annotation.confidence.cpu().numpy())
        yield annotation.labels.cpu().numpy(), predict_masks(reference, image), image, *certainty


def _student_rows(student: Student, truth: LabelledSet) -> Rows:
    for i in _slices(truth):
        found = student.predict(torch.from_numpy(np.ascontiguousarray(truth.image[i])))
        certainty = (found.score.cpu().numpy(), found.confidence.cpu().numpy())
        yield found.labels.cpu().numpy(), truth.mask[i], truth.image[i], *certainty


def _certainty(data: LabelledSet, samples: slice) -> tuple[np.ndarray, ...]:
    """The uncertainty of these samples and the confidence of their pixels, or nothing where the set has none."""
    if data.score is None:
        return ()
    return (data.score[samples],) if data.confidence is None else (data.score[samples], data.confidence[samples])


def aligned(rows: Rows, subject: LabelMap, truth: LabelMap) -> tuple[Rows, LabelMap, dict[str, str] | None]:
    """Rows whose two masks have the same classes, those classes, and which cluster was taken for which class.

    Equal names: as they are. Clusters without names: each is taken for the class that makes the best score
    (`match_segments`), over all images at once; their confidences are left out, which are of a cluster and not of the
    class that it is part of. Two-part masks against more classes: the truth's first class is
    background, the others foreground. Errors: UsageError for any other difference.
    """
    if subject.names == truth.names:
        return rows, truth, None
    if are_segments(subject):
        kept = list(rows)
        overlap = np.zeros((len(subject), len(truth)), np.int64)
        for p, t, *_ in kept:
            overlap += overlap_of(p, t, len(subject), len(truth))
        mapping = match_segments(overlap)
        table = np.full(256, IGNORE, np.uint8)
        table[: len(subject)] = mapping
        named = {name: truth.names[c] for name, c in zip(subject.names, mapping.tolist(), strict=True)}
        return ((table[p], t, *rest[:2]) for p, t, *rest in kept), truth, named
    if subject.names == ("background", "foreground"):
        table = np.full(256, IGNORE, np.uint8)
        table[: len(truth)] = [min(c, 1) for c in range(len(truth))]
        return ((p, table[t], *rest) for p, t, *rest in rows), subject, None
    raise UsageError(
        f"got classes {', '.join(subject.names)}",
        wanted=f"those of the truth: {', '.join(truth.names)}",
        remedy="use the same class names in the same order",
    )
