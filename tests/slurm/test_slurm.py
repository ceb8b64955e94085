"""On a real Slurm of two fake nodes (`make test-slurm`): a killed and requeued array task, and the printed script."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from gansegctl.store.claims import claims
from gansegctl.store.manifest import Manifest, problems_of_dataset

pytestmark = pytest.mark.slow

PATIENCE = 600
"""Seconds for a job: this cluster lies on one, often busy, machine."""
SCRIPT = Path(__file__).with_name("cluster.sh")
TASKS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which sbatch and gansegctl are found; the cluster is gone afterwards."""
    base = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(["bash", str(SCRIPT), "start", str(base)], capture_output=True, text=True, check=False)
    try:
        if started.returncode:
            pytest.skip(started.stderr.strip().splitlines()[-1])
        own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        yield own | {"SLURM_CONF": str(base / "slurm.conf"), "PATH": paths, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            ["scancel", "--full", "--user=root"], env=own | {"SLURM_CONF": str(base / "slurm.conf")}, check=False
        )
        time.sleep(2)
    finally:
        subprocess.run(["bash", str(SCRIPT), "stop", str(base)], check=False)


def shell(cluster, *words: object) -> str:
    """A command's output; it must succeed."""
    done = subprocess.run([str(w) for w in words], env=cluster, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def state(cluster, job: str) -> dict[str, str]:
    """What scontrol says of a job."""
    words = shell(cluster, "scontrol", "show", "job", job).split()
    return dict(w.split("=", 1) for w in words if "=" in w)


def wait_for(cluster, what, seconds: float = PATIENCE):
    """Poll until what() is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, shell(cluster, "squeue", "--long")
        time.sleep(0.2)
    return found


def ended(cluster, name: str = "") -> bool:
    return not shell(cluster, "squeue", "-h", *(["--name", name] if name else []))


def words_for(generator_file, out) -> list[str]:
    sizes = ("-n", 240, "--shard-size", 6, "--batch-size", 2, "--device", "cpu")
    return [str(w) for w in ("gansegctl", "generate", "--generator", generator_file, *sizes, "-o", out)]


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_an_array_with_a_task_killed_and_requeued_equals_one_machine(cluster, generator_file, tmp_path):
    shell(cluster, *words_for(generator_file, tmp_path / "one" / "data"))
    out = tmp_path / "many" / "data"
    job = tmp_path / "job.sh"
    job.write_text(f"#!/bin/bash\nexec {shlex.join(words_for(generator_file, out))}\n")
    asked = ("--parsable", f"--array=0-{TASKS - 1}", "--gres=gpu:1", "--requeue", "--job-name=array")
    number = shell(cluster, "sbatch", *asked, f"--output={tmp_path}/%a.log", "--open-mode=append", job)

    def at_work():
        return out.is_dir() and [c for c in claims(out) if c.task.endswith(f"/{TASKS}")]

    claim = wait_for(cluster, at_work)[0]
    victim = claim.task.split("/")[0]
    os.kill(claim.pid, signal.SIGKILL)  # the nodes are this machine, so that its process can be hit from here
    # The job is over and failed; it is put back by hand, as an operator would, or Slurm itself where a node died.
    wait_for(cluster, lambda: state(cluster, f"{number}_{victim}")["JobState"] in ("FAILED", "CANCELLED", "COMPLETED"))
    assert state(cluster, f"{number}_{victim}")["JobState"] == "FAILED"
    assert len(Manifest.read(out).done(out)) < 40  # its shards are not all there
    shell(cluster, "scontrol", "requeue", f"{number}_{victim}")
    wait_for(cluster, lambda: ended(cluster, "array"))

    said = (tmp_path / f"{victim}.log").read_text()
    assert said.count(f"task {victim}/{TASKS} (by the Slurm array)") == 2, said
    assert state(cluster, f"{number}_{victim}")["Restarts"] == "1"
    assert content(out) == content(tmp_path / "one" / "data")
    assert problems_of_dataset(out) == []


def test_the_printed_script_is_what_it_submits(cluster, generator_file, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 1
    Image.fromarray(painted).save(masks / "exemplar-00000003.mask.png")
    preset = tmp_path / "small.toml"
    preset.write_text(
        f"""[generate]
generator = "{generator_file}"
seeds = "0-39"
batch_size = 2
shard_size = 5
[annotate]
shots = 1
method = "repurpose"
masks = "{masks}"
[annotate.options]
head = "mlp"
steps = 5
[distill]
steps = 6
batch_size = 8
precision = "fp64"
"""
    )
    (masks / "labels.json").write_text(
        '[{"id": 0, "name": "ground", "colour": [0, 0, 0]}, {"id": 1, "name": "figure", "colour": [9, 9, 9]}]'
    )
    shell(cluster, "gansegctl", "run", preset, "-o", tmp_path / "one", "--device", "cpu")
    asked = ("--tasks", 2, "--time", "00:20:00", "--gres", "gpu:1", "--cpus", 1, "--ranks", 2)
    script = tmp_path / "job.sh"
    script.write_text(shell(cluster, "gansegctl", "sbatch", preset, "-o", tmp_path / "many", *asked) + "\n")
    said = shell(cluster, "bash", script)  # fails where sbatch refuses a job
    assert [line.split(":")[0] for line in said.splitlines()] == ["generate", "annotate", "distill"]
    wait_for(cluster, lambda: ended(cluster))
    logs = "\n".join(p.read_text() for p in sorted((tmp_path / "many" / "logs").iterdir()))
    assert (tmp_path / "many" / "student.safetensors").exists(), logs
    assert content(tmp_path / "many" / "dataset") == content(tmp_path / "one" / "dataset"), logs
    one, many = (load_file(tmp_path / name / "student.safetensors") for name in ("one", "many"))
    for key in one:
        assert np.allclose(one[key], many[key], rtol=1e-6, atol=1e-6), key
