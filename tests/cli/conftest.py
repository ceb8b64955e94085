"""What the tests of the commands share: a small dataset, and the check that bad input is named and loses nothing."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from gansegctl.cli import main


@pytest.fixture(scope="session")
def made(generator_file, tmp_path_factory):
    """A dataset of six images without masks, made once."""
    folder = tmp_path_factory.mktemp("cli") / "d"
    with pytest.raises(SystemExit):
        main(["generate", "--generator", str(generator_file), "-n", "6", "-o", str(folder)])
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    """A copy of that dataset."""
    return shutil.copytree(made, tmp_path / "d")


@pytest.fixture
def refused(generator_file, dataset, tmp_path, call):
    """Check that a command line ends in a status, names the fault, prints no data, and changes no file.

    {gen}, {new}, {full}, {png}, {data} and {toml} in its words stand for files and folders of these kinds.
    """

    def check(arguments, wanted, word):
        full = tmp_path / "full"
        full.mkdir()
        (full / "notes.txt").write_text("mine")
        png = tmp_path / "x.png"
        Image.new("RGB", (8, 8)).save(png)
        toml = tmp_path / "p.toml"
        toml.write_text(f'[generate]\ngenerator = "{generator_file}"\ntrunkation = 0.7\n')
        places = {"gen": generator_file, "new": tmp_path / "new", "full": full, "png": png, "data": dataset}
        places["toml"] = toml
        before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
        status, out, err = call(*(a.format(**places) for a in arguments))
        assert status == wanted, err
        assert word in err
        assert out == ""
        assert "Traceback" not in err
        assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before
        assert not (tmp_path / "new").exists()

    return check
