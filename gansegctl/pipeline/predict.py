"""The stage `predict`: a student on picture files, one indexed mask and one overlay each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from gansegctl.contracts import Progress
from gansegctl.errors import GansegError, UsageError
from gansegctl.pictures import overlay, read_image, save_png
from gansegctl.pipeline.pictures_in import image_files
from gansegctl.students.student import Student


def predict(student: Path, images: Sequence[Path], out: Path, device: str = "cpu") -> Iterator[Progress]:
    """Write OUT/NAME.mask.png and OUT/NAME.overlay.png for every picture; those that are there are skipped.

    Errors: UsageError for a missing picture, none at all, or two of one name.
    """
    model = Student.load(student, device)
    files = [f for path in images for f in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise UsageError("got no pictures", wanted="picture files, or folders with some")
    names = [f.stem for f in files]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UsageError(f"got two pictures named {twice[0]}", wanted="every name once", remedy="predict them apart")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise GansegError(f"got {out}: {e.strerror}", wanted="a folder that can be written") from e
    skipped = 0
    for i, file in enumerate(files):
        target = out / f"{file.stem}.mask.png"
        if target.exists():
            skipped += 1
        else:
            picture = read_image(file, model.channels)  # [H, W, c]
            mask = model.predict(torch.from_numpy(picture.copy())[None]).labels[0].cpu().numpy()
            indexed = Image.fromarray(mask)
            indexed.putpalette(model.labels.flat_palette())
            save_png(out / f"{file.stem}.overlay.png", overlay(picture, mask, model.labels))
            save_png(target, indexed)  # last: its presence means that this picture is done
        yield Progress("predict", i + 1, len(files), "pictures", {"skipped": skipped})
