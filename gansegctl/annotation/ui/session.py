"""A session of painting: state = replay of the journal. Strokes in, masks out; no network is known here."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gansegctl.annotation.bundle import BundleItem, mask_path, saved_masks
from gansegctl.annotation.mask_png import is_blank
from gansegctl.annotation.ui.backend import Backend, ExemplarImage
from gansegctl.annotation.ui.journal import Journal
from gansegctl.annotation.ui.mask_history import MaskHistory, encode
from gansegctl.errors import UsageError
from gansegctl.io.image import save_png

JOURNAL = "strokes.jsonl"
FORMAT = 1
LEVELS = 3
_KINDS = ("paint", "replace", "undo", "redo")


class Session:
    """The images being painted, in the order of the strip. All methods may be called from several threads.

    folder: a bundle that holds the images' (blank or painted) masks. Masks painted elsewhere since the last session
    are taken over as one stroke each. Errors: as `Journal`; UsageError for a journal of other images or classes.
    """

    def __init__(self, folder: Path, backend: Backend, seeds: Sequence[int]) -> None:
        self.folder, self.backend = Path(folder), backend
        self.images: list[ExemplarImage] = []
        self.histories: list[MaskHistory] = []
        self.finished: tuple[int, ...] | None = None
        self._lock = threading.RLock()
        self._seen: set[str] = set()
        self._saved: dict[int, str] = {}
        self._parts: dict[tuple[int, int], np.ndarray] = {}
        self._finding = threading.Lock()  # parts are found by one thread at a time
        self.journal = Journal(self.folder / JOURNAL)
        try:
            for seed in seeds:
                self._show(seed)
            self._replay()
            self._take_over()
        except BaseException:
            self.journal.close()
            raise

    # -- what the page reads ----------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Grows with every change to any mask."""
        return sum(p.changes for p in self.histories)

    def describe(self) -> dict[str, Any]:
        """All that a page needs to begin, but the pixels."""
        with self._lock:
            return {
                "size": list(self.backend.size),
                "classes": self.backend.labels.to_json(),
                "levels": LEVELS,
                "about": dict(self.backend.about),
                "exemplars": [self._standing(i) for i in range(len(self.images))],
                "revision": self.revision,
            }

    def mask(self, place: int) -> dict[str, Any]:
        """The mask of one image as runs, and where it stands."""
        with self._lock:
            return self._standing(self._checked(place)) | {"mask": encode(self.histories[place].mask)}

    def masks(self) -> dict[int, np.ndarray]:
        """Seed → mask of every image of the strip; copies."""
        with self._lock:
            pairs = zip(self.images, self.histories, strict=True)
            return {image.seed: p.mask.copy() for image, p in pairs}

    def parts(self, place: int, level: int) -> np.ndarray:
        """int32 [H,W]: the parts of one image at one level of detail, as split so far."""
        seed = self.images[self._checked(place)].seed
        if not isinstance(level, int) or not 0 <= level < LEVELS:
            raise UsageError(f"got level {level!r}", wanted=f"0 to {LEVELS - 1}")
        with self._finding:
            if (seed, level) not in self._parts:
                self._parts[seed, level] = self.backend.parts(seed, level)
            return self._parts[seed, level]

    # -- what the page does -----------------------------------------------------------------------------------------

    def split(self, place: int, level: int, pixel: object) -> np.ndarray:
        """Split the part that holds the pixel (row · W + column) further; returns the new map."""
        parts = self.parts(place, level)
        if not isinstance(pixel, int) or not 0 <= pixel < parts.size:
            raise UsageError(f"got pixel {pixel!r}", wanted=f"0 to {parts.size - 1}")
        with self._finding:
            parts = self._parts[self.images[place].seed, level]
            inside = parts == parts.ravel()[pixel]
            pieces = self.backend.split(self.images[place].seed, inside)
            renamed = np.where(pieces > 0, parts.max() + pieces, parts).astype(np.int32)  # piece 0 keeps the name
            self._parts[self.images[place].seed, level] = renamed
            return renamed

    def stroke(self, given: dict[str, Any]) -> dict[str, Any]:
        """Journal one stroke, undo or redo, then do it; a second arrival of the same id changes nothing.

        given: {"id", "exemplar", "kind": paint | replace | undo | redo, "class", "runs", "tool"}. The answer is the
        image's standing; with its mask after undo, redo and replace.
        """
        if not isinstance(given, dict) or given.get("kind") not in _KINDS:
            raise UsageError("got no stroke", wanted='{"kind": "paint" or "replace", "undo", "redo", …}')
        name, kind = given.get("id"), given["kind"]
        if not isinstance(name, str) or not 1 <= len(name) <= 64:
            raise UsageError(f"got stroke id {str(name)[:80]!r}", wanted="1 to 64 characters, new for every stroke")
        with self._lock:
            place = self._checked(given.get("exemplar"))
            history = self.histories[place]
            if name not in self._seen and not self._idle(history, kind):
                record = {"kind": kind, "id": name, "seed": self.images[place].seed}
                if kind in ("paint", "replace"):
                    record |= {"runs": given.get("runs"), "tool": str(given.get("tool", ""))[:32]}
                if kind == "paint":
                    record["class"] = given.get("class")
                trial = MaskHistory(self.backend.size, len(self.backend.labels))  # what cannot be done is never written
                self._apply(trial, record)
                self.journal.append(record)
                self._apply(history, record)
                self._seen.add(name)
            return self._standing(place) if kind == "paint" else self.mask(place)

    def add(self, seed: object) -> dict[str, Any]:
        """Add an image that the backend offers to the strip. UsageError for any other."""
        with self._lock:
            present = [p.seed for p in self.images]
            if not isinstance(seed, int) or (seed not in present and seed not in self.backend.offered):
                raise UsageError(f"got seed {seed!r}", wanted="an image that was offered")
            if seed not in present:
                self.journal.append({"kind": "add", "seed": seed})
                self._show(seed)
            return self._standing([p.seed for p in self.images].index(seed))

    def finish(self) -> tuple[int, ...]:
        """Write the masks of all painted images into the bundle; returns their seeds. UsageError for none."""
        with self._lock:
            ready = [i for i, p in enumerate(self.histories) if not is_blank(p.mask)]
            if not ready:
                raise UsageError("got no image with two classes on it", wanted="one painted image or more")
            saved = {}
            for i in ready:
                seed, mask = self.images[i].seed, self.histories[i].mask
                image = Image.fromarray(mask)
                image.putpalette(self.backend.labels.flat_palette())
                save_png(mask_path(self.folder, seed), image)
                saved[str(seed)] = _digest(mask)
            self.journal.append({"kind": "saved", "sha256": saved})
            self.finished = tuple(self.images[i].seed for i in ready)
            return self.finished

    def items(self) -> list[BundleItem]:
        """The images as items of a bundle."""
        with self._lock:
            return [BundleItem(0, p.seed, p.image, why=p.why) for p in self.images]

    def close(self) -> None:
        """Give the journal back."""
        self.journal.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _show(self, seed: int) -> None:
        self.images.append(self.backend.image(seed))
        self.histories.append(MaskHistory(self.backend.size, len(self.backend.labels)))

    def _checked(self, place: object) -> int:
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(self.images):
            raise UsageError(f"got image {str(place)[:80]!r}", wanted=f"0 to {len(self.images) - 1}")
        return place

    def _standing(self, place: int) -> dict[str, Any]:
        image, history = self.images[place], self.histories[place]
        return {
            "exemplar": place,
            "seed": image.seed,
            "why": image.why,
            "changes": history.changes,
            "undo": history.undoable,
            "redo": history.redoable,
            "painted": round(history.painted, 4),
            "revision": self.revision,
        }

    @staticmethod
    def _idle(history: MaskHistory, kind: str) -> bool:
        return (kind == "undo" and not history.undoable) or (kind == "redo" and not history.redoable)

    @staticmethod
    def _apply(history: MaskHistory, record: dict[str, Any]) -> None:
        if record["kind"] == "paint":
            history.paint(record["class"], record["runs"])
        elif record["kind"] == "replace":
            history.replace(record["runs"])
        elif record["kind"] == "undo":
            history.undo()
        else:
            history.redo()

    def _replay(self) -> None:
        size, classes = list(self.backend.size), list(self.backend.labels.names)
        opening = {"kind": "open", "format": FORMAT, "size": size, "classes": classes}
        if not self.journal.records:
            self.journal.append(opening)
            return
        if self.journal.records[0] != opening:
            raise UsageError(
                f"got {self.journal.path}, strokes for images of {self.journal.records[0].get('size')} pixels and "
                f"classes {', '.join(map(str, self.journal.records[0].get('classes', [])))}",
                wanted=f"{size} pixels and classes {', '.join(classes)}",
                remedy="move that file away to begin anew",
            )
        for record in self.journal.records[1:]:
            seeds = [p.seed for p in self.images]
            if record["kind"] == "saved":
                self._saved |= {int(k): v for k, v in record["sha256"].items()}
                continue
            if record["seed"] not in seeds:  # added in an earlier session, or one of another choice of exemplars
                self._show(record["seed"])
                seeds.append(record["seed"])
            if record["kind"] in _KINDS:
                self._apply(self.histories[seeds.index(record["seed"])], record)
                self._seen.add(record["id"])
        self.journal.records = []  # replayed: not needed again

    def _take_over(self) -> None:
        """Masks that another program painted since: the file counts, as a stroke that can be undone."""
        for image, history in zip(self.images, self.histories, strict=True):
            if not mask_path(self.folder, image.seed).is_file():
                continue
            mask = saved_masks(self.folder, [image.seed], self.backend.size, self.backend.labels, True)[image.seed]
            if is_blank(mask) or _digest(mask) in (self._saved.get(image.seed), _digest(history.mask)):
                continue
            name = f"file-{_digest(mask)[:16]}-{history.changes}"
            record = {"kind": "replace", "id": name, "seed": image.seed, "runs": encode(mask), "tool": "file"}
            self.journal.append(record)
            self._apply(history, record)
            self._seen.add(name)


def _digest(mask: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()
