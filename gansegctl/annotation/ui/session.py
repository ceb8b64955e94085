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
from gansegctl.annotation.ui.backend import Desk, Picture
from gansegctl.annotation.ui.journal import Journal
from gansegctl.annotation.ui.mask_history import Painting, encode
from gansegctl.errors import UsageError
from gansegctl.io.image import save_png

JOURNAL = "strokes.jsonl"
FORMAT = 1
LEVELS = 3
_KINDS = ("paint", "replace", "undo", "redo")


class Session:
    """The pictures being painted, in the order of the strip. All methods may be called from several threads.

    folder: a bundle that holds the pictures' (blank or painted) masks. Masks painted elsewhere since the last session
    are taken over as one stroke each. Errors: as `Journal`; UsageError for a journal of other pictures or classes.
    """

    def __init__(self, folder: Path, desk: Desk, seeds: Sequence[int]) -> None:
        self.folder, self.desk = Path(folder), desk
        self.pictures: list[Picture] = []
        self.paintings: list[Painting] = []
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
        return sum(p.changes for p in self.paintings)

    def describe(self) -> dict[str, Any]:
        """All that a page needs to begin, but the pixels."""
        with self._lock:
            return {
                "size": list(self.desk.size),
                "classes": self.desk.labels.to_json(),
                "levels": LEVELS,
                "about": dict(self.desk.about),
                "exemplars": [self._standing(i) for i in range(len(self.pictures))],
                "revision": self.revision,
            }

    def mask(self, place: int) -> dict[str, Any]:
        """The mask of one picture as runs, and where it stands."""
        with self._lock:
            return self._standing(self._checked(place)) | {"mask": encode(self.paintings[place].mask)}

    def masks(self) -> dict[int, np.ndarray]:
        """Seed → mask of every picture of the strip; copies."""
        with self._lock:
            pairs = zip(self.pictures, self.paintings, strict=True)
            return {picture.seed: p.mask.copy() for picture, p in pairs}

    def parts(self, place: int, level: int) -> np.ndarray:
        """int32 [H,W]: the parts of one picture at one level of detail, as split so far."""
        seed = self.pictures[self._checked(place)].seed
        if not isinstance(level, int) or not 0 <= level < LEVELS:
            raise UsageError(f"got level {level!r}", wanted=f"0 to {LEVELS - 1}")
        with self._finding:
            if (seed, level) not in self._parts:
                self._parts[seed, level] = self.desk.parts(seed, level)
            return self._parts[seed, level]

    # -- what the page does -----------------------------------------------------------------------------------------

    def split(self, place: int, level: int, pixel: int) -> np.ndarray:
        """Split the part that holds the pixel (row · W + column) further; returns the new map."""
        parts = self.parts(place, level)
        if not isinstance(pixel, int) or not 0 <= pixel < parts.size:
            raise UsageError(f"got pixel {pixel!r}", wanted=f"0 to {parts.size - 1}")
        with self._finding:
            parts = self._parts[self.pictures[place].seed, level]
            inside = parts == parts.ravel()[pixel]
            pieces = self.desk.split(self.pictures[place].seed, inside)
            renamed = np.where(pieces > 0, parts.max() + pieces, parts).astype(np.int32)  # piece 0 keeps the name
            self._parts[self.pictures[place].seed, level] = renamed
            return renamed

    def stroke(self, given: dict[str, Any]) -> dict[str, Any]:
        """Journal one stroke, undo or redo, then do it; a second arrival of the same id changes nothing.

        given: {"id", "exemplar", "kind": paint | replace | undo | redo, "class", "runs", "tool"}. The answer is the
        picture's standing; with its mask after undo, redo and replace.
        """
        if not isinstance(given, dict) or given.get("kind") not in _KINDS:
            raise UsageError("got no stroke", wanted='{"kind": "paint" or "replace", "undo", "redo", …}')
        name, kind = given.get("id"), given["kind"]
        if not isinstance(name, str) or not 1 <= len(name) <= 64:
            raise UsageError(f"got stroke id {str(name)[:80]!r}", wanted="1 to 64 characters, new for every stroke")
        with self._lock:
            place = self._checked(given.get("exemplar"))
            painting = self.paintings[place]
            if name not in self._seen and not self._idle(painting, kind):
                record = {"kind": kind, "id": name, "seed": self.pictures[place].seed}
                if kind in ("paint", "replace"):
                    record |= {"runs": given.get("runs"), "tool": str(given.get("tool", ""))[:32]}
                if kind == "paint":
                    record["class"] = given.get("class")
                trial = Painting(self.desk.size, len(self.desk.labels))  # what cannot be done is never written
                self._apply(trial, record)
                self.journal.append(record)
                self._apply(painting, record)
                self._seen.add(name)
            return self._standing(place) if kind == "paint" else self.mask(place)

    def add(self, seed: int) -> dict[str, Any]:
        """Add a picture that the desk offers to the strip. UsageError for any other."""
        with self._lock:
            present = [p.seed for p in self.pictures]
            if seed not in present:
                if seed not in self.desk.offered:
                    raise UsageError(f"got seed {seed!r}", wanted="a picture that was offered")
                self.journal.append({"kind": "add", "seed": seed})
                self._show(seed)
            return self._standing([p.seed for p in self.pictures].index(seed))

    def finish(self) -> tuple[int, ...]:
        """Write the masks of all painted pictures into the bundle; returns their seeds. UsageError for none."""
        with self._lock:
            ready = [i for i, p in enumerate(self.paintings) if not is_blank(p.mask)]
            if not ready:
                raise UsageError("got no picture with two classes on it", wanted="one painted picture or more")
            saved = {}
            for i in ready:
                seed, mask = self.pictures[i].seed, self.paintings[i].mask
                picture = Image.fromarray(mask)
                picture.putpalette(self.desk.labels.flat_palette())
                save_png(mask_path(self.folder, seed), picture)
                saved[str(seed)] = _digest(mask)
            self.journal.append({"kind": "saved", "sha256": saved})
            self.finished = tuple(self.pictures[i].seed for i in ready)
            return self.finished

    def items(self) -> list[BundleItem]:
        """The pictures as items of a bundle."""
        with self._lock:
            return [BundleItem(0, p.seed, p.image, why=p.why) for p in self.pictures]

    def close(self) -> None:
        """Give the journal back."""
        self.journal.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _show(self, seed: int) -> None:
        self.pictures.append(self.desk.picture(seed))
        self.paintings.append(Painting(self.desk.size, len(self.desk.labels)))

    def _checked(self, place: object) -> int:
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(self.pictures):
            raise UsageError(f"got picture {str(place)[:80]!r}", wanted=f"0 to {len(self.pictures) - 1}")
        return place

    def _standing(self, place: int) -> dict[str, Any]:
        picture, painting = self.pictures[place], self.paintings[place]
        return {
            "exemplar": place,
            "seed": picture.seed,
            "why": picture.why,
            "changes": painting.changes,
            "undo": painting.undoable,
            "redo": painting.redoable,
            "painted": round(painting.painted, 4),
            "revision": self.revision,
        }

    @staticmethod
    def _idle(painting: Painting, kind: str) -> bool:
        return (kind == "undo" and not painting.undoable) or (kind == "redo" and not painting.redoable)

    @staticmethod
    def _apply(painting: Painting, record: dict[str, Any]) -> None:
        if record["kind"] == "paint":
            painting.paint(record["class"], record["runs"])
        elif record["kind"] == "replace":
            painting.replace(record["runs"])
        elif record["kind"] == "undo":
            painting.undo()
        else:
            painting.redo()

    def _replay(self) -> None:
        opening = {"kind": "open", "format": FORMAT, "size": list(self.desk.size), "classes": self.desk.labels.names}
        opening = opening | {"classes": list(opening["classes"])}
        if not self.journal.records:
            self.journal.append(opening)
            return
        if self.journal.records[0] != opening:
            raise UsageError(
                f"got {self.journal.path}, strokes for pictures of {self.journal.records[0].get('size')} pixels and "
                f"classes {', '.join(map(str, self.journal.records[0].get('classes', [])))}",
                wanted=f"{opening['size']} pixels and classes {', '.join(opening['classes'])}",
                remedy="move that file away to begin anew",
            )
        for record in self.journal.records[1:]:
            seeds = [p.seed for p in self.pictures]
            if record["kind"] == "saved":
                self._saved |= {int(k): v for k, v in record["sha256"].items()}
                continue
            if record["seed"] not in seeds:  # added in an earlier session, or one of another choice of exemplars
                self._show(record["seed"])
                seeds.append(record["seed"])
            if record["kind"] in _KINDS:
                self._apply(self.paintings[seeds.index(record["seed"])], record)
                self._seen.add(record["id"])
        self.journal.records = []  # replayed: not needed again

    def _take_over(self) -> None:
        """Masks that another program painted since: the file counts, as a stroke that can be undone."""
        for picture, painting in zip(self.pictures, self.paintings, strict=True):
            if not mask_path(self.folder, picture.seed).is_file():
                continue
            mask = saved_masks(self.folder, [picture.seed], self.desk.size, self.desk.labels, True)[picture.seed]
            if is_blank(mask) or _digest(mask) in (self._saved.get(picture.seed), _digest(painting.mask)):
                continue
            name = f"file-{_digest(mask)[:16]}-{painting.changes}"
            record = {"kind": "replace", "id": name, "seed": picture.seed, "runs": encode(mask), "tool": "file"}
            self.journal.append(record)
            self._apply(painting, record)
            self._seen.add(name)


def _digest(mask: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()
