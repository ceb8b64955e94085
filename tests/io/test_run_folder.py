"""Run folders: begun, gone on with, or refused with every difference by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from gansegctl.errors import DatasetError, ExitStatus, GansegError, UsageError
from gansegctl.io import run_folder
from gansegctl.io.atomic import this_host
from gansegctl.io.run_folder import Difference, begin, differences, require_empty, require_same

RECORD = {"steps": 3, "sizes": (4, 8), "inversion": {"space": "w", "lr": 0.1}, "generator": "ab" * 32}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "run"


def message(call, error=UsageError) -> str:
    with pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error
    return str(raised.value)


def test_a_run_is_begun_once_and_gone_on_with_after(folder):
    assert begin(folder, RECORD) is False
    before = (folder / "settings.json").read_text()
    assert before == json.dumps(RECORD, indent=1) + "\n"
    assert begin(folder, RECORD) is True
    assert begin(folder, json.loads(before)) is True  # a tuple and the list that it became
    assert (folder / "settings.json").read_text() == before and len(list(folder.iterdir())) == 1


def test_the_file_takes_its_name_and_form_from_the_run(folder):
    begin(folder, {"tile": 0, "licence": "Größe"}, "predict.json", notes={"outputs": ("mask",)}, indent=None)
    assert (folder / "predict.json").read_text("utf-8") == '{"tile": 0, "licence": "Größe", "outputs": ["mask"]}\n'


def test_other_settings_are_refused_with_every_difference(folder):
    begin(folder, RECORD)
    now = {"steps": 3, "sizes": [4], "inversion": {"space": "w+", "lr": 0.1, "noise": None}, "generator": "cd" * 32}
    assert message(lambda: begin(folder, now)) == (
        f"got {folder}, begun with other settings or inputs: sizes: [4, 8] there, [4] asked for; "
        'inversion.space: "w" there, "w+" asked for; inversion.noise: nothing there, null asked for; '
        'generator: "abababababab…" there, "cdcdcdcdcdcd…" asked for\n'
        "  wanted: the same, to go on\n"
        "  remedy: use those, or choose another -o"
    )
    assert json.loads((folder / "settings.json").read_text())["steps"] == 3


def test_a_value_that_is_gone_is_a_difference_too(folder):
    begin(folder, {"steps": 3, "real": "ab" * 32})
    assert 'real: "abababababab…" there, nothing asked for' in message(lambda: begin(folder, {"steps": 3}))


def test_notes_are_told_and_never_compared(folder):
    begin(folder, RECORD, notes={"outputs": ["mask"]})
    assert begin(folder, RECORD, notes={"outputs": ["overlay"]}) is True
    assert json.loads((folder / "settings.json").read_text())["outputs"] == ["mask"]
    assert 'outputs: ["mask"] there' in message(lambda: begin(folder, RECORD))


def test_error_and_remedy_are_the_runs_own(folder):
    begin(folder, RECORD)
    told = message(lambda: begin(folder, {}, error=DatasetError, remedy="try elsewhere"), DatasetError)
    assert told.endswith("remedy: try elsewhere") and DatasetError.status == ExitStatus.DATASET


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"text"'])
def test_a_record_that_cannot_be_read_is_refused_and_left(folder, content):
    folder.mkdir(parents=True)
    (folder / "settings.json").write_bytes(content)
    told = message(lambda: begin(folder, RECORD))
    assert told.startswith(f"got {folder / 'settings.json'}: ") and "wanted: the record of a run" in told
    assert (folder / "settings.json").read_bytes() == content


class TestAlone:
    """A folder that holds nothing but the run."""

    def test_other_files_are_refused_and_left_alone(self, folder):
        folder.mkdir(parents=True)
        (folder / "thesis.tex").write_text("mine")
        assert begin(folder, RECORD, "other.json") is False  # not asked to be alone
        told = message(lambda: begin(folder, RECORD, alone=True))
        assert told.startswith(f"got {folder}, which holds other.json and 1 more\n")
        assert "wanted: a new or empty folder, or one with settings.json to go on with" in told
        assert sorted(p.name for p in folder.iterdir()) == ["other.json", "thesis.tex"]

    def test_its_own_results_are_no_other_files(self, folder):
        begin(folder, RECORD, alone=True)
        (folder / "result.txt").write_text("half")
        assert begin(folder, RECORD, alone=True) is True

    def test_leftovers_of_killed_processes_go(self, folder):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        folder.mkdir(parents=True)
        for resumed in (False, True):
            dead = folder / f"x.part.{this_host()}.{gone.pid}"
            alive = dead.with_name(dead.name.replace(str(gone.pid), str(os.getppid())))
            dead.write_text("half")
            alive.write_text("half")
            assert begin(folder, RECORD, alone=True) is resumed
            assert not dead.exists() and alive.exists()

    def test_require_empty_names_what_is_there(self, folder):
        require_empty(folder)
        (folder / ".export").mkdir()
        require_empty(folder, besides=(".export",))
        assert f"got {folder}, which holds .export\n" in message(lambda: require_empty(folder))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "wanted: a folder that can be written" in message(lambda p=place: begin(p, RECORD), GansegError)
        assert "wanted: a folder that can be written" in message(lambda p=place: require_empty(p), GansegError)


def test_of_two_that_begin_at_once_one_is_refused(folder, monkeypatch):
    create = run_folder.create_text

    def as_if_slower(path, text, sync):
        monkeypatch.setattr(run_folder, "create_text", create)
        begin(folder, {"steps": 3})
        create(path, text, sync)

    monkeypatch.setattr(run_folder, "create_text", as_if_slower)
    assert "steps: 3 there, 4 asked for" in message(lambda: begin(folder, {"steps": 4}))
    monkeypatch.setattr(run_folder, "create_text", as_if_slower)
    assert begin(folder, {"steps": 3}) is True


CLAIM = """
import sys
from pathlib import Path
from gansegctl.io.run_folder import claim
input()
print(claim(Path(sys.argv[1]), "manifest.json", sys.argv[2]))
"""


def test_of_many_that_claim_at_once_one_gets_it(folder):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen([sys.executable, "-c", CLAIM, str(folder), str(i)], **pipes) for i in range(6)]
    for process in crowd:  # all have started by now, or soon will
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [process.communicate()[0].strip() == "True" for process in crowd]
    assert sum(won) == 1 and (folder / "manifest.json").read_text() == str(won.index(True))
    assert len(list(folder.iterdir())) == 1


def test_differences_are_compared_as_json():
    assert differences({"a": (1, 2), "b": {"c": {}}}, {"a": [1, 2], "b": {"c": {}}}) == []
    assert differences({"a": float("nan")}, {"a": float("nan")}) == []
    assert differences({"a": 1}, {"a": True}) == [Difference("a", "1", "true")]
    assert differences({"a": {}}, {"a": {"b": 1}}) == [
        Difference("a.b", "nothing", "1"),
        Difference("a", "{}", "nothing"),
    ]
    require_same({"a": {"b": 1}}, {"a": {"b": 1}}, "here")
