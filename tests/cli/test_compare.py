"""`compare` from the shell: JSON and table, what seeds it takes, exit statuses."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from gansegctl.errors import GansegError
from gansegctl.labels import LabelMap
from gansegctl.methods.repurpose import Repurpose
from gansegctl.students.student import Student, build

QUICK = "linear:steps=3,statistics_samples=2"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        labels = LabelMap(("ground", "figure", "hat"))
        Student(build("unet", 3, 3, (8, 12)), labels, (16, 16), 3, widths=(8, 12)).save(path)
    return path


@pytest.fixture
def compare(generator_file, reference, tmp_path, call):
    """Run it on the tiny generator → (status, stdout, stderr)."""
    return partial(call, "compare", "--generator", generator_file, "--against", reference, "-o", tmp_path / "out")


def test_a_row_each_the_table_and_its_files(compare, tmp_path):
    few = ("--method", QUICK, "--draws", 2, "--seeds", 1, "-n", 4, "--first-exemplar", 70, "--first-sample", 90)
    code, out, _ = compare(*few, "--json")
    assert code == 0
    told = json.loads(out)
    assert [(e["method"], e["shots"], e["runs"]) for e in told["table"]] == [(QUICK, 1, 2)]
    assert all((tmp_path / "out" / name.rsplit("/", 1)[1]).stat().st_size for name in told["files"])
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert rows["first_exemplar"] == 70 and rows["samples"] == [90, 4]
    code, out, err = compare(*few)  # measured already
    assert code == 0 and "linear" in out + err
    code, _, err = compare("--method", QUICK, "--draws", 2, "--seeds", 1, "-n", 4, "--first-sample", 90)
    assert code == 2 and "70" in err and "2000000" in err


def test_a_method_that_there_is_not(compare):
    code, _, err = compare("--method", "linaer")
    assert code == 2 and "did you mean 'linear'" in err


def test_a_failure_is_told_after_all_others_are_measured(compare, tmp_path, monkeypatch):
    def fail(*_):
        raise GansegError("got a loss that is not finite")

    other = "repurpose:steps=3,statistics_samples=2"
    few = ("--method", other, "--method", QUICK, "--draws", 1, "--seeds", 2, "-n", 4, "--json")
    with monkeypatch.context() as m:
        m.setattr(Repurpose, "fit", fail)
        code, out, err = compare(*few)
    line = f"{other}, 1 shot, 2 runs: got a loss that is not finite"
    assert code == 1 and line in err and "--retry" in err and QUICK not in err.split("Error:")[1]
    told = json.loads(out)
    assert [(e["method"], e["runs"]) for e in told["table"]] == [(QUICK, 2)] and told["failed"] == [line]
    assert "gain_10" in told["table"][0]
    assert all((tmp_path / "out" / name.rsplit("/", 1)[1]).stat().st_size for name in told["files"])
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"\nFailed: {line}\n" in table and "gain" not in table
    code, _, err = compare("--method", QUICK, *few[4:])  # nothing that this command asks for failed
    assert code == 0
    code, _, err = compare(*few)
    assert code == 1 and line in err
    code, out, _ = compare(*few, "--retry")
    assert code == 0 and json.loads(out)["failed"] == [] and len(json.loads(out)["table"]) == 2


def test_truncation_belongs_to_the_rows(compare, tmp_path):
    few = ("--method", QUICK, "--draws", 1, "--seeds", 1, "-n", 4)
    assert compare(*few, "--truncation", 0.7)[0] == 0
    assert json.loads((tmp_path / "out" / "rows.json").read_text())["truncation"] == 0.7
    code, _, err = compare(*few)
    assert code == 2 and "truncation: 0.7 there, 1.0 asked for" in err
