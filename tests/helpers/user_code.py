"""A user's lines against the public API, for `mypy --strict` (`make types`): nothing here runs in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import gansegctl


def segment(checkpoint: str, mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], out: Path) -> list[str]:
    """Fit on one painted sample, label eight others, save the segmenter → the names of its classes."""
    generator = gansegctl.open_generator(checkpoint)
    labels = gansegctl.LabelMap(("background", "lesion"))
    exemplar = gansegctl.Exemplar(gansegctl.latents_of_seeds(generator, [3]), 3, mask)
    method = gansegctl.get_method("linear")
    segmenter = method.fit(generator, [exemplar], labels, method.settings_type(), seed=0)
    images, annotation = gansegctl.sample(generator, range(100, 108), segmenter)
    if annotation is not None:
        print(images.shape, annotation.labels.shape, float(annotation.score.mean()))
    segmenter.save(out)
    again = gansegctl.open_segmenter(out)
    student = gansegctl.open_student(out.with_name("student.safetensors"))
    print(student.predict(images).confidence.shape, len(gansegctl.open_dataset("dataset")))
    return list(again.labels.names)
