"""The commands as a shell sees them: data on stdout, talk on stderr, exit statuses, nothing lost on bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gansegctl.cli import COMMANDS, main
from gansegctl.store.manifest import Manifest, foreign_files

HEAVY = ("torch", "numpy", "h5py", "PIL", "rich", "tqdm")


@pytest.fixture
def call(capsys):
    """Run a command line in this process → (status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def made(generator_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "d"
    with pytest.raises(SystemExit):
        main(["generate", "--generator", str(generator_file), "-n", "6", "-o", str(folder)])
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    return shutil.copytree(made, tmp_path / "d")


def test_help_of_every_command_imports_nothing_heavy():
    """One process asks for all of them; a second imports torch at the end, so that the check can fail."""
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom gansegctl.cli import cli, COMMANDS\n"
        "for a in [[], *[[c] for c in COMMANDS], ['demo', 'scenes'], ['demo', 'run']]:\n"
        "    r = CliRunner().invoke(cli, [*a, '--help'])\n    assert r.exit_code == 0, (a, r.output)\n"
        "    assert 'Usage' in r.output\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_every_command(call):
    status, out, _ = call("--help")
    assert status == 0
    assert all(name in out for name in COMMANDS)


def test_generate_prints_one_json_object(generator_file, tmp_path, call):
    status, out, err = call(
        "generate", "--generator", generator_file, "--seeds", "3,7-8", "-o", tmp_path / "o", "--json"
    )
    assert status == 0
    assert json.loads(out)["samples"] == 3
    assert "generate: 3/3" in err


def test_dry_run_writes_nothing(generator_file, tmp_path, call):
    status, out, _ = call(
        "generate", "--generator", generator_file, "-n", "9", "-o", tmp_path / "o", "--dry-run", "--json"
    )
    assert status == 0
    assert json.loads(out)["raw_bytes"] == 9 * (16 * 16 * 3 + 4 * 8)
    assert not (tmp_path / "o").exists()


def test_the_main_job_by_hand(dataset, tmp_path, call):
    status, out, err = call("annotate", dataset, "--shots", "1", "--classes", "ground,figure")
    assert status == 0
    assert f"gansegctl annotate {dataset} --shots 1 --masks" in err
    mask = next((dataset / "exemplars").glob("*.mask.png"))
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 1
    Image.fromarray(painted).save(mask)
    before = json.loads((dataset / "manifest.json").read_text())["stage"]
    status, out, _ = call(
        "annotate", dataset, "--shots", "1", "--masks", dataset / "exemplars", "--set", "steps=20", "--json"
    )
    assert (before, status, json.loads(out)["stage"]) == ("images", 0, "pairs")
    student = tmp_path / "s.safetensors"
    status, out, _ = call("distill", dataset, "-o", student, "--steps", "3", "--batch-size", "4", "--json")
    assert (status, json.loads(out)["student"]) == (0, str(student))
    status, out, _ = call("eval", student, "--against", dataset, "--bootstrap", "5", "-o", tmp_path / "e")
    assert status == 0
    assert "figure" in out
    assert "wiou_tritrong" in out
    assert (tmp_path / "e" / "confusion.png").is_file()
    status, out, _ = call("predict", student, dataset / "exemplars", "-o", tmp_path / "p", "--json")
    assert status == 0
    with Image.open(next((tmp_path / "p").glob("*.mask.png"))) as indexed:
        assert (indexed.mode, indexed.size) == ("P", (16, 16))
    status, out, _ = call("predict", student, dataset / "exemplars", "-o", tmp_path / "p", "--json")
    assert json.loads(out)["skipped"] == json.loads(out)["images"] > 0
    assert call("verify", dataset)[0] == 0
    assert call("inspect", dataset, "--json")[0] == 0


def test_verify_finds_a_flipped_byte(dataset, call):
    shard = dataset / "shard-00000.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    status, out, err = call("verify", dataset, "--json")
    assert status == 4
    assert "damaged" in json.loads(out)["problems"][0]
    assert "remedy" in err


def test_scenes(tmp_path, call):
    status, out, _ = call("demo", "scenes", "-n", "3", "--resolution", "32", "-o", tmp_path / "s", "--json")
    assert status == 0
    assert json.loads(out)["classes"][5] == "nose"
    assert call("verify", tmp_path / "s")[0] == 0


def test_train_resumes(tmp_path, call):
    for i, colour in enumerate(((200, 0, 0), (0, 200, 0), (0, 0, 200))):
        Image.new("RGB", (40, 36), colour).save(tmp_path / f"{i}.png")
    small = ("--resolution", "32", "--channel-base", "64", "--channel-max", "8", "--batch-size", "4")
    out = tmp_path / "out" / "g.safetensors"
    assert call("train", tmp_path, "-o", out, "--images-seen", "4", *small)[0] == 0
    first = out.read_bytes()
    status, _, _ = call("train", tmp_path, "-o", out, "--images-seen", "8", *small, "--json")
    assert status == 0
    assert out.read_bytes() != first
    assert out.with_suffix(".png").is_file()
    assert call("generate", "--generator", out, "-n", "2", "-o", tmp_path / "d")[0] == 0


def test_doctor(call):
    status, out, _ = call("doctor", "--json")
    assert status == 0
    assert json.loads(out)["backends"]["reference"] == "ready"


BAD = {
    "a missing generator": (("generate", "--generator", "no.safetensors", "-n", "2", "-o", "{new}"), 2, "no such file"),
    "an image as generator": (("generate", "--generator", "{png}", "-n", "2", "-o", "{new}"), 2, "a PNG image"),
    "an unknown preset": (("generate", "--generator", "dmeo", "-n", "2", "-o", "{new}"), 2, "did you mean 'demo'"),
    "zero samples": (("generate", "--generator", "{gen}", "-n", "0", "-o", "{new}"), 2, "-n"),
    "a negative batch": (
        ("generate", "--generator", "{gen}", "-n", "1", "--batch-size", "-3", "-o", "{new}"),
        2,
        "batch",
    ),
    "no count": (("generate", "--generator", "{gen}", "-o", "{new}"), 2, "neither"),
    "bad seeds": (("generate", "--generator", "{gen}", "--seeds", "5-2", "-o", "{new}"), 2, "5-2"),
    "a folder in use": (("generate", "--generator", "{gen}", "-n", "1", "-o", "{full}"), 2, "empty folder"),
    "a file as folder": (("generate", "--generator", "{gen}", "-n", "1", "-o", "{png}"), 1, "png"),
    "other settings": (("generate", "--generator", "{gen}", "-n", "6", "--noise", "none", "-o", "{data}"), 4, "noise"),
    "a device that is not here": (
        ("generate", "--generator", "{gen}", "-n", "1", "-o", "{new}", "--device", "cuda:77"),
        3,
        "cuda",
    ),
    "a class without classes": (
        ("generate", "--generator", "{gen}", "-n", "1", "-o", "{new}", "--class", "1"),
        2,
        "class",
    ),
    "no dataset": (("annotate", "{new}", "--shots", "1"), 4, "no such folder"),
    "no classes": (("annotate", "{data}", "--shots", "1"), 2, "--classes"),
    "an unknown method": (
        ("annotate", "{data}", "--method", "repurposed", "--classes", "a,b"),
        2,
        "did you mean 'repurpose'",
    ),
    "zero shots": (("annotate", "{data}", "--shots", "0", "--classes", "a,b"), 2, "--shots 0"),
    "masks nowhere": (("annotate", "{data}", "--shots", "1", "--masks", "{new}"), 2, "--masks"),
    "no masks in it": (("annotate", "{data}", "--shots", "1", "--masks", "{full}", "--classes", "a,b"), 2, "0 masks"),
    "a split of a dataset": (("distill", "{data}", "-o", "{new}.safetensors", "--split", "0"), 2, "--split 0"),
    "an undistillable set": (("distill", "{data}", "-o", "{new}.safetensors"), 4, "annotate"),
    "a split of no real images": (("distill", "{data}", "-o", "{new}.safetensors", "--real-split", "0"), 2, "--real"),
    "real images nowhere": (("distill", "{data}", "-o", "{new}.safetensors", "--real", "{new}"), 2, "no such file"),
    "a share of all": (
        ("distill", "{data}", "-o", "{new}.safetensors", "--real", "{data}", "--real-share", "1"),
        2,
        "--real-share",
    ),
    "a student without suffix": (("distill", "{data}", "-o", "{new}"), 2, ".safetensors"),
    "no subject": (("eval", "{new}", "--against", "demo"), 2, "no such file"),
    "an image as student": (("predict", "{png}", "{png}", "-o", "{new}"), 2, "not a safetensors"),
    "an unknown preset to run": (("run", "demmo", "-o", "{new}"), 2, "did you mean 'demo'"),
    "an unknown key": (("run", "{toml}", "-o", "{new}"), 2, "generate.trunkation"),
    "an unknown command": (("genrate",), 2, "did you mean 'generate'"),
    "a png as checkpoint": (("inspect", "{png}"), 2, "a PNG image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, generator_file, dataset, tmp_path, call):
    arguments, wanted, word = BAD[case]
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    png = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(png)
    toml = tmp_path / "p.toml"
    toml.write_text(f'[generate]\ngenerator = "{generator_file}"\ntrunkation = 0.7\n')
    places = {"gen": generator_file, "new": tmp_path / "new", "full": full, "png": png, "data": dataset, "toml": toml}
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    status, out, err = call(*(a.format(**places) for a in arguments))
    assert status == wanted, err
    assert word in err
    assert out == ""
    assert "Traceback" not in err
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (Image.new("L", (20, 16), 1), "20"),
        (Image.new("L", (16, 16), 9), "9"),
    ],
)
def test_bad_masks_are_refused_before_anything_is_written(mask, word, dataset, call):
    call("annotate", dataset, "--shots", "1", "--classes", "a,b")
    mask.putpixel((0, 0), 0)
    mask.save(next((dataset / "exemplars").glob("*.mask.png")))
    before = (dataset / "shard-00000.h5").read_bytes()
    status, _, err = call("annotate", dataset, "--shots", "1", "--masks", dataset / "exemplars")
    assert status == 2
    assert word in err
    assert "wanted" in err
    assert (dataset / "shard-00000.h5").read_bytes() == before


def test_run_a_preset_file(generator_file, tmp_path, call):
    toml = tmp_path / "p.toml"
    toml.write_text(f'[generate]\ngenerator = "{generator_file}"\nseeds = "0-3"\n')
    assert call("run", toml, "-o", tmp_path / "out")[0] == 0
    status, out, _ = call("run", toml, "-o", tmp_path / "out", "--json")
    assert status == 0
    assert json.loads(out)["dataset"]["samples"] == 4
    assert json.loads(call("run", "demo", "-o", tmp_path, "--dry-run", "--json")[1])["annotate"]["shots"] == 1


def test_sigterm_ends_in_143_and_the_command_goes_on_afterwards(generator_file, tmp_path, call):
    out = tmp_path / "o"
    arguments = ["generate", "--generator", str(generator_file), "-n", "3000", "--batch-size", "1", "--shard-size", "4"]
    process = subprocess.Popen([sys.executable, "-m", "gansegctl", *arguments, "-o", str(out)], stderr=subprocess.PIPE)
    for _ in range(2400):
        if list(out.glob("shard-*.json")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert b"terminated" in err
    assert not [p for p in os.listdir(out) if ".part" in p]
    done = sorted(out.glob("shard-*.json"))
    assert done
    status, text, _ = call("verify", out, "--json")
    assert status == 4
    assert not [p for p in json.loads(text)["problems"] if "damaged" in p]


def test_masks_of_0_and_255_are_not_taken_for_two_classes(dataset, tmp_path, call):
    masks = tmp_path / "masks"
    masks.mkdir()
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 255
    Image.fromarray(painted).save(masks / "exemplar-00000003.mask.png")
    words = ("annotate", dataset, "--masks", masks, "--classes", "ground,figure,hat", "--set", "steps=2")
    status, _, err = call(*words)
    assert status == 2
    assert "values 0, 255 only; 255 means ignored" in err and "write 1, not 255, for figure" in err
    painted[4:12, 4:12] = 1
    painted[0] = 255
    Image.fromarray(painted).save(masks / "exemplar-00000003.mask.png")
    status, _, err = call(*words)
    assert status == 0
    assert "seed 3: 6.2% of the pixels are 255, ignored" in err and "no pixel is painted as: hat" in err


def test_a_file_of_ones_own_stops_for_the_painting_and_goes_on(generator_file, tmp_path, call):
    preset, out = tmp_path / "mine.toml", tmp_path / "out"
    preset.write_text(
        f"""[generator]
licence = "CC-BY-4.0"
[exemplars]
classes = ["ground", "figure"]
[generate]
generator = "{generator_file}"
seeds = "0-7"
[annotate]
shots = 1
[annotate.options]
steps = 2
"""
    )
    status, said, err = call("run", preset, "-o", out, "--device", "cpu")
    assert status == 0, err
    folder = out / "dataset" / "exemplars"
    assert f"--masks {folder}" in said and Manifest.read(out / "dataset").licence == "CC-BY-4.0"
    assert [r["name"] for r in json.loads((folder / "labels.json").read_text())] == ["ground", "figure"]
    mask = next(folder.glob("*.mask.png"))
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 1
    Image.fromarray(painted).save(mask)
    status, _, err = call("run", preset, "-o", out, "--masks", folder, "--device", "cpu")
    assert status == 0, err
    assert Manifest.read(out / "dataset").stage == "pairs"


def test_a_licence_is_kept_and_stays(generator_file, tmp_path, call):
    words = ("generate", "--generator", generator_file, "-n", 2, "-o", tmp_path / "d", "--licence")
    assert call(*words, "CC-BY-4.0")[0] == 0
    assert call(*words, "other")[0] == 0
    assert Manifest.read(tmp_path / "d").licence == "CC-BY-4.0"


def test_scores_beside_a_segmenter_are_no_strangers_in_its_dataset(dataset):
    (dataset / "segmenter-eval").mkdir()
    (dataset / "notes.txt").write_text("mine")
    assert foreign_files(dataset) == ["notes.txt"]


def test_a_generator_that_has_moved_is_asked_for(generator_file, tmp_path, call):
    moved = tmp_path / "g.safetensors"
    moved.write_bytes(Path(generator_file).read_bytes())
    assert call("generate", "--generator", moved, "-n", 2, "-o", tmp_path / "d")[0] == 0
    moved.unlink()
    status, _, err = call("annotate", tmp_path / "d", "--classes", "a,b")
    assert status == 2 and "was made with it" in err and "--generator FILE" in err


def test_masks_that_are_not_used_are_named(dataset, tmp_path, call):
    masks = tmp_path / "masks"
    masks.mkdir()
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 1
    for seed in (1, 3):
        Image.fromarray(painted).save(masks / f"exemplar-{seed:08d}.mask.png")
    words = ("annotate", dataset, "--shots", 1, "--masks", masks, "--classes", "ground,figure", "--set", "steps=2")
    assert "2 masks and --shots 1: not used are seeds 3" in call(*words, "--dry-run")[2]
    assert "not used" not in call(*words, "--dry-run", "--exemplars", "1")[2]
