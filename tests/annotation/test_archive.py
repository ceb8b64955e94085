"""Zips: their members are counted and measured before one is unpacked, and nothing is written."""

from __future__ import annotations

from helpers.annotation_files import LABELS, SIZE
from helpers.annotation_references import SEED
from helpers.malformed_annotations import cvat, liar, message

from gansegctl.annotation import archive
from gansegctl.annotation.importer import read_masks


def test_many_small_files_of_a_zip_are_counted(tmp_path, monkeypatch):
    path = cvat(tmp_path)
    monkeypatch.setattr(archive, "MEMBERS", 3)
    assert "with 4 files" in message(path)
    monkeypatch.setattr(archive, "MEMBERS", 10)
    monkeypatch.setattr(archive, "TOTAL_BYTES", 100)
    assert "in all" in message(path)


def test_a_zip_that_says_less_than_it_holds_is_not_unpacked_beyond_that(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MEMBER_BYTES", 2**20)
    assert "is damaged" in message(liar(tmp_path))


def test_a_zip_with_the_names_of_the_bundle_is_read_without_writing(tmp_path):
    path = cvat(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert read_masks(path, LABELS, SIZE, [SEED])[SEED].mask.any()
    assert sorted(p.name for p in tmp_path.iterdir()) == before
