"""Several processes train the student that one would: by torchrun, killed and resumed; and what they share."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import plan
from helpers.student_training import LABELS, STILL, settings, shapes
from safetensors.torch import load_file
from torch import nn

from gansegctl.config import DistillSettings
from gansegctl.errors import UsageError
from gansegctl.pipeline.distill import stage as distilling
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import write_shard
from gansegctl.students.augment import AugmentSettings, augment
from gansegctl.students.distributed import ONE_RANK, JointBatchNorm2d, Ranks, process_group
from gansegctl.students.training import StudentTraining

TOLERANCE = 1e-6
"""Of weights after 20 steps in fp64. fp32 differs by the order of sums, which Adam makes larger from step to step."""


def dataset(folder: Path) -> Path:
    """64 discs and bars in two shards."""
    manifest, pairs = plan(("0-31", "32-63")), shapes(64)
    manifest.begin(folder)
    for i in range(2):
        rows, sure = slice(32 * i, 32 * i + 32), np.full((32, 16, 16), 255, np.uint8)
        seeds, scores = np.arange(rows.start, rows.stop, dtype=np.uint64), np.zeros(32, np.float32)
        arrays = ShardArrays(pairs.image[rows].numpy(), seeds, None, pairs.target[rows].numpy(), sure, scores)
        write_shard(folder, i, arrays, manifest.labels, manifest.digest)
    return folder


def start(words: list[str], **environ: str) -> subprocess.Popen:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    kept |= {"OMP_NUM_THREADS": "1"} | environ
    return subprocess.Popen([sys.executable, "-m", *words], env=kept, stderr=subprocess.PIPE, text=True)


OPTIONS = ["--device", "cpu", "--steps", "20", "--batch-size", "8", "--accumulate", "2", "--precision", "fp64"]


@pytest.fixture()
def broken(tmp_path):
    """Two ranks of a `distill` of which one was killed: its dataset, and the student it did not come to write."""
    data, out = dataset(tmp_path / "data"), tmp_path / "two.safetensors"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    words = ["gansegctl", "distill", str(data), "-o", str(out), *OPTIONS]
    ranks = [start(words, RANK=str(i), **meeting) for i in range(2)]
    while not out.with_suffix(".ckpt").exists() and all(r.poll() is None for r in ranks):
        time.sleep(0.005)
    ranks[1].send_signal(signal.SIGKILL)
    said = ranks[0].communicate(timeout=60)[1]
    ranks[1].communicate()
    assert ranks[0].returncode == 1 and "rank 0 of 2 left alone" in said, said
    assert out.with_suffix(".ckpt").exists() and not out.exists()
    return data, out


def test_two_ranks_killed_and_resumed_equal_one_process(broken, tmp_path):
    data, out = broken
    words = ["gansegctl", "distill", str(data), "-o", str(out), *OPTIONS]
    again = start(["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *words])
    said = again.communicate(timeout=120)[1]
    assert again.returncode == 0, said
    assert said.count("distill: 20/20") == 1  # one speaks for all
    assert not out.with_suffix(".ckpt").exists()

    alone = tmp_path / "one.safetensors"
    list(distilling.distill(data, alone, DistillSettings(steps=20, batch_size=8, accumulate=2, precision="fp64")))
    one, two = load_file(alone), load_file(out)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert torch.allclose(two[name].double(), weight.double(), rtol=TOLERANCE, atol=TOLERANCE), name
    assert one["head.weight"].abs().max() > 100 * TOLERANCE  # the comparison means something


STEPS = """
import os, sys, torch
from helpers.student_training import LABELS, settings, shapes
from gansegctl.students.distributed import process_group
from gansegctl.students.training import StudentTraining

torch.manual_seed(os.getpid())
with process_group("cpu", os.environ) as ranks:
    s = settings(arch="deeplabv3", widths=(4, 4, 8, 8), accumulate=2, precision="fp64")
    training = StudentTraining(shapes(16), LABELS, s, ranks=ranks)
    print(*(training.train_step() for _ in range(3)))
"""


def test_two_ranks_of_a_network_with_dropout_equal_one_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    tests = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", STEPS],
            env={k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
            | meeting
            | tests
            | {"RANK": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [p.communicate(timeout=120)[0].splitlines() for p in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    # Gloo of torch 2.8 tells of its connections on stdout.
    said = [[float(x) for line in o if not line.startswith("[Gloo]") for x in line.split()] for o in outputs]
    options = settings(arch="deeplabv3", widths=(4, 4, 8, 8), accumulate=2, precision="fp64")
    training = StudentTraining(shapes(16), LABELS, options)
    wanted = [training.train_step() for _ in range(3)]
    assert said[0] == said[1] == pytest.approx(wanted, rel=1e-9)
    assert wanted[0] != pytest.approx(wanted[1], rel=1e-3)


def test_passes_add_up_to_the_batch():
    weights = []
    for accumulate in (1, 4):
        training = StudentTraining(
            shapes(32), LABELS, settings(steps=3, accumulate=accumulate, augment=STILL, precision="fp64")
        )
        for block in [*training.student.model.down, *training.student.model.up]:
            block[1] = block[4] = nn.Identity()  # normalisation sees one pass at a time
        losses = [training.train_step() for _ in range(3)]
        weights.append((losses, [p.detach() for p in training.student.model.parameters()]))
    assert weights[0][0] == pytest.approx(weights[1][0], rel=1e-9)
    for a, b in zip(weights[0][1], weights[1][1], strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_passes_change_what_normalisation_sees():
    losses = [StudentTraining(shapes(32), LABELS, settings(accumulate=a, augment=STILL)).train_step() for a in (1, 2)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("first", [0, 3])
def test_a_share_is_augmented_as_in_the_whole_batch(first):
    pairs = shapes(6)
    x = pairs.image.permute(0, 3, 1, 2).float() / 127.5 - 1
    whole = augment(x, pairs.target, AugmentSettings(), torch.Generator().manual_seed(5))
    stream = torch.Generator().manual_seed(5)
    rows = slice(first, first + 3)
    part = augment(x[rows], pairs.target[rows], AugmentSettings(), stream, (first, 6))
    assert torch.equal(part[0], whole[0][rows]) and torch.equal(part[1], whole[1][rows])
    after = torch.Generator().manual_seed(5)
    augment(x, pairs.target, AugmentSettings(), after)
    assert torch.equal(stream.get_state(), after.get_state())


def test_every_row_is_one_ranks():
    assert [i for r in range(4) for i in range(8)[Ranks(r, 4).rows(8)]] == list(range(8))
    assert [r.lead for r in (ONE_RANK, Ranks(1, 4))] == [True, False]


def test_a_batch_that_does_not_divide_is_refused():
    for ranks, accumulate in ((Ranks(0, 3), 1), (Ranks(0, 2), 8), (ONE_RANK, 3)):
        with pytest.raises(UsageError, match="multiple of"):
            StudentTraining(shapes(16), LABELS, settings(accumulate=accumulate), ranks=ranks)
    with pytest.raises(UsageError, match="--accumulate 0"):
        settings(accumulate=0)


def test_evaluation_needs_no_other_rank():
    plain = nn.BatchNorm2d(3)
    plain.running_mean.uniform_(-1, 1)
    joint = JointBatchNorm2d(3)
    joint.load_state_dict(plain.state_dict())
    joint.ranks = Ranks(0, 2)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(joint.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    "environ",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"},
    ],
)
def test_what_is_not_torchruns_is_refused(environ):
    with pytest.raises(UsageError, match="torchrun"), process_group("cpu", environ):
        pass


def test_other_launchers_are_refused():
    srun = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}
    with pytest.raises(UsageError, match="by srun"), distilling.torchrun_ranks("cpu", srun):
        pass
    for environ in ({}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}):
        with distilling.torchrun_ranks("cpu", environ) as ranks:
            assert ranks == ONE_RANK
