"""Which process does what: every scheduler's variables, and what contradicts itself."""

from __future__ import annotations

import pytest

from gansegctl.errors import UsageError
from gansegctl.pipeline.runtime.tasks import ALONE, Task, local_rank, resolve_task

SLURM = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "7",
    "SLURM_ARRAY_TASK_COUNT": "8",
    "SLURM_ARRAY_TASK_STEP": "1",
}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "task", "source"),
    [
        ({}, (0, 1), ""),
        (SLURM, (3, 8), "Slurm array"),
        (SLURM | {"SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "9"}, (1, 8), "Slurm array"),
        (
            {f"SLURM_ARRAY_TASK_{k}": v for k, v in dict(ID="14", MIN="10", MAX="16", COUNT="4", STEP="2").items()},
            (2, 4),
            "Slurm array",
        ),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4"}, (2, 4), "Slurm array"),
        (TORCHRUN, (5, 8), "torchrun"),
        (SRUN, (1, 2), "srun"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2), "srun"),
        ({"JOB_COMPLETION_INDEX": "2", "GANSEGCTL_TASKS": "5"}, (2, 5), "Kubernetes"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "3"}, (1, 3), "AWS Batch"),
        ({"PBS_ARRAY_INDEX": "4", "GANSEGCTL_TASKS": "5"}, (4, 5), "PBS"),
        ({"SGE_TASK_ID": "1", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "4", "SGE_TASK_STEPSIZE": "1"}, (0, 4), "SGE"),
        ({"SGE_TASK_ID": "5", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "9", "SGE_TASK_STEPSIZE": "2"}, (2, 5), "SGE"),
        ({"SGE_TASK_ID": "undefined", "SGE_TASK_LAST": "undefined"}, (0, 1), ""),
        ({"LSB_JOBINDEX": "4", "LSB_JOBINDEX_END": "4"}, (3, 4), "LSF"),
        ({"LSB_JOBINDEX": "0"}, (0, 1), ""),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, (1, 3), "Open MPI"),
        (SLURM | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (3, 8), "Slurm array"),
        (SLURM | SRUN, (3 * 2 + 1, 16), "the Slurm array × srun"),
        (SLURM | TORCHRUN, (3 * 8 + 5, 64), "the Slurm array × torchrun"),
        (TORCHRUN | SRUN, (5, 8), "torchrun"),  # one launcher a node
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1), ""),
    ],
)
def test_schedulers_are_understood(environ, task, source):
    found = resolve_task(None, environ)
    assert (found.index, found.count) == task
    assert source in found.source


def test_what_is_said_wins():
    assert resolve_task("2/3", {}) == Task(2, 3, "--task")
    assert resolve_task("2/3", SLURM | TORCHRUN) == Task(2, 3, "--task")
    assert resolve_task("3/8", SLURM) == Task(3, 8, "--task")
    assert resolve_task("0/1", SLURM).count == 1
    # what cannot tell a task, or contradicts itself, is no reason to refuse what is said
    assert resolve_task("0/4", {"JOB_COMPLETION_INDEX": "0"}) == Task(0, 4, "--task")
    assert resolve_task("7/8", {"PBS_ARRAY_INDEX": "7"}).index == 7
    assert resolve_task("3/4", SLURM | {"SLURM_ARRAY_TASK_COUNT": "2"}).index == 3
    assert resolve_task("1/9", TORCHRUN | {"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}).count == 9
    # part of an array, sent again: its own variables tell nothing, the script's --task does
    again = SLURM | {"SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "6", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert resolve_task("3/8", again).index == 3


@pytest.mark.parametrize("text", ["", "3", "8/8", "1/0", "-1/4", "a/b", "1/2/3", "0.5/2", "²/4"])
def test_odd_tasks_are_refused(text):
    with pytest.raises(UsageError, match="i/n with i from 0"):
        resolve_task(text, {})


@pytest.mark.parametrize(
    ("explicit", "environ", "words"),
    [
        ("2/8", SLURM, r"--task 2/8, and 3/8 from the Slurm array[\s\S]*count from 0"),
        ("0/8", TORCHRUN, "several processes would do the same"),
        ("0/2", SLURM | SRUN, "1/2 from srun"),
        (None, SLURM | {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "8"}, "contradicting arrays"),
        (None, TORCHRUN | {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, "contradicting ranks: 5/8 from torchrun"),
        (None, TORCHRUN | {"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, "contradicting ranks"),
        (None, {"JOB_COMPLETION_INDEX": "2"}, r"--task 2/N, or set GANSEGCTL_TASKS=N"),
        (None, {"JOB_COMPLETION_INDEX": "2", "GANSEGCTL_TASKS": "2"}, "got task 2 of 2"),
        (None, {"PBS_ARRAY_INDEX": "0"}, "does not give the number"),
        (None, SLURM | {"SLURM_ARRAY_TASK_COUNT": "3"}, "without gaps"),
    ],
)
def test_contradictions_and_gaps_are_refused(explicit, environ, words):
    with pytest.raises(UsageError, match=words):
        resolve_task(explicit, environ)


def test_a_batch_script_is_not_one_of_the_tasks_it_may_start():
    environ = {"ENVIRONMENT": "BATCH", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    assert resolve_task(None, environ) == ALONE
    assert resolve_task(None, environ | {"SLURM_STEP_ID": "0"}).count == 4


def test_agreeing_sources_are_one():
    environ = SLURM | {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "8"}
    assert (resolve_task(None, environ).index, resolve_task(None, environ).count) == (3, 8)


@pytest.mark.parametrize("count", [1, 3, 8, 50])
def test_every_shard_is_exactly_one_tasks(count):
    tasks = [Task(i, count) for i in range(count)]
    for shard in range(40):
        assert sum(t.takes(shard) for t in tasks) == 1


def test_the_device_of_a_rank():
    assert local_rank(TORCHRUN) == 1
    assert local_rank({"SLURM_LOCALID": "2"}) == 2
    assert local_rank({}) == 0


def test_the_steps_of_an_lsf_array_leave_no_shard_to_nobody():
    step = {"LSB_JOBINDEX_END": "9", "LSB_JOBINDEX_STEP": "2"}
    found = [resolve_task(None, step | {"LSB_JOBINDEX": str(i)}) for i in range(1, 10, 2)]
    assert [(t.index, t.count) for t in found] == [(i, 5) for i in range(5)]


def test_the_pods_of_one_torchrun_are_not_counted_twice():
    def pod(node: int, rank: int) -> dict[str, str]:
        ranks = {"RANK": str(2 * node + rank), "WORLD_SIZE": "4", "GROUP_RANK": str(node), "GROUP_WORLD_SIZE": "2"}
        return ranks | {"JOB_COMPLETION_INDEX": str(node), "GANSEGCTL_TASKS": "2"}

    found = [resolve_task(None, pod(node, rank)) for node in range(2) for rank in range(2)]
    assert [(t.index, t.count) for t in found] == [(i, 4) for i in range(4)]
    with pytest.raises(UsageError, match="node 1 of 2 from torchrun, and 0/2 from the Kubernetes job"):
        resolve_task(None, pod(1, 0) | {"JOB_COMPLETION_INDEX": "0"})
    alone = pod(1, 1) | {"GROUP_WORLD_SIZE": "1", "GROUP_RANK": "0", "RANK": "1", "WORLD_SIZE": "2"}
    assert (resolve_task(None, alone).index, resolve_task(None, alone).count) == (3, 4)
