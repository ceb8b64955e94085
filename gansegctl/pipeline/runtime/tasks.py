"""The task of this process: given by --task, or read from the variables that a scheduler has set.

Two things can split work: an array (the scheduler starts the same script n times) and ranks (a launcher starts several
processes inside one job). They compose: index = array index · ranks + rank. Task i of n makes the shards i, i + n, …;
which seeds a shard holds does not depend on it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gansegctl.errors import UsageError

COUNT_VARIABLE = "GANSEGCTL_TASKS"
"""Number of tasks, for schedulers that give only the index (Kubernetes, PBS)."""


@dataclass(frozen=True)
class Task:
    """index of count, from 0. source: where both come from, --task or a scheduler."""

    index: int = 0
    count: int = 1
    source: str = ""

    def takes(self, shard: int) -> bool:
        """Whether a shard is this task's."""
        return shard % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


ALONE = Task()


def resolve_task(explicit: str | None, environ: Mapping[str, str]) -> Task:
    """--task, else array × ranks of the environment, else all.

    Errors: UsageError for what cannot be a task, and where two sources contradict each other. With --task, sources that
    cannot tell a task, or contradict each other, do not count.
    """
    if explicit is None:
        return _around(environ)
    asked = _parse(explicit)
    for read in (_around, _array, launched):
        with contextlib.suppress(UsageError):
            other = read(environ)
            if other.count > 1 and other.count == asked.count and other.index != asked.index:
                break
    else:
        return asked
    raise UsageError(
        f"got --task {explicit}, and {other} from {other.source}",
        wanted="one of them: several processes would do the same, and some shards would be nobody's",
        remedy="leave --task out; tasks count from 0",
    )


def _around(environ: Mapping[str, str]) -> Task:
    """Array × ranks. The pods of one torchrun over several nodes are an array too, which counts once."""
    array, rank = _array(environ), launched(environ)
    if array.count == 1 or rank.count == 1:
        return array if array.count > 1 else rank
    nodes, node = _number(environ, "GROUP_WORLD_SIZE"), _number(environ, "GROUP_RANK")
    if rank.source == "torchrun" and array.source in ONE_NODE and nodes == array.count:
        if node != array.index:
            raise UsageError(
                f"got node {node} of {nodes} from torchrun, and {array} from {array.source}",
                wanted="the same number",
                remedy="pass --node-rank of the index to torchrun, or --task i/n",
            )
        return rank
    source = f"{array.source} × {rank.source}"
    return Task(array.index * rank.count + rank.index, array.count * rank.count, source)


def _array(environ: Mapping[str, str]) -> Task:
    return _agreed(_found(ARRAYS, environ), "arrays")


def launched(environ: Mapping[str, str]) -> Task:
    """Which of the processes that a launcher (torchrun, Open MPI, srun) started together this is; ALONE for one."""
    return _agreed_ranks(_found(RANKS, environ))


def local_rank(environ: Mapping[str, str]) -> int:
    """Which of a node's processes this is: it takes the device of that number, modulo those it sees."""
    for name in ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"):
        number = _number(environ, name)
        if number is not None:
            return number
    return 0


def _parse(text: str) -> Task:
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(f"got --task {text}", wanted="i/n with i from 0 to n-1, as in 0/8")
    return Task(int(match[1]), int(match[2]), "--task")


def _found(readers: Mapping[str, Callable], environ: Mapping[str, str]) -> list[Task]:
    found = []
    for source, read in readers.items():
        pair = read(environ)
        if pair is not None:
            index, count = pair
            if not 0 <= index < count:
                raise UsageError(
                    f"got task {index} of {count} from {source}",
                    wanted="an index from 0 to the count less 1",
                    remedy="pass --task i/n",
                )
            found.append(Task(index, count, source))
    return found


def _agreed(found: list[Task], what: str) -> Task:
    several = [t for t in found if t.count > 1]
    if len({(t.index, t.count) for t in several}) > 1:
        raise UsageError(
            f"got contradicting {what}: " + ", ".join(f"{t} from {t.source}" for t in several),
            wanted="one of them",
            remedy="pass --task i/n, or unset the variables that are left over from another job",
        )
    return several[0] if several else ALONE


def _agreed_ranks(found: list[Task]) -> Task:
    """The innermost launcher: one that was itself started once a node by another has a multiple of its count."""
    several = [t for t in found if t.count > 1]
    for outer in several[1:]:
        inner = several[0]
        if inner.count % outer.count or (inner.count == outer.count and inner.index != outer.index):
            return _agreed(several, "ranks")
    return several[0] if several else ALONE


def _number(environ: Mapping[str, str], name: str) -> int | None:
    """The value of a variable; None where it is absent or says that there is none, as SGE's "undefined"."""
    text = environ.get(name, "").strip()
    return int(text) if re.fullmatch(r"\d+", text, re.ASCII) else None


def _with_count(index: int | None, environ: Mapping[str, str], source: str) -> tuple[int, int] | None:
    if index is None:
        return None
    count = _number(environ, COUNT_VARIABLE)
    if count is None:
        raise UsageError(
            f"got index {index} from {source}, which does not give the number of tasks",
            wanted="both",
            remedy=f"pass --task {index}/N, or set {COUNT_VARIABLE}=N for all tasks",
        )
    return index, count


def _slurm_array(environ: Mapping[str, str]) -> tuple[int, int] | None:
    index, low, high, count, step = (
        _number(environ, f"SLURM_ARRAY_TASK_{n}") for n in ("ID", "MIN", "MAX", "COUNT", "STEP")
    )
    if index is None:
        return None
    low, step = low or 0, step or 1
    if count is None:
        count = ((high if high is not None else index) - low) // step + 1
    if high is not None and (high - low) // step + 1 != count:
        raise UsageError(
            f"got a Slurm array of {count} tasks between {low} and {high}",
            wanted="an array without gaps: else no task can know its number",
            remedy='pass --task "$SLURM_ARRAY_TASK_ID/N" with N of the whole array',
        )
    return (index - low) // step, count


def _aws_batch(environ: Mapping[str, str]) -> tuple[int, int] | None:
    index, count = _number(environ, "AWS_BATCH_JOB_ARRAY_INDEX"), _number(environ, "AWS_BATCH_JOB_ARRAY_SIZE")
    if index is None or count is None:
        return _with_count(index, environ, "AWS Batch")
    return index, count


def _sge(environ: Mapping[str, str]) -> tuple[int, int] | None:
    index, last = _number(environ, "SGE_TASK_ID"), _number(environ, "SGE_TASK_LAST")
    first, step = _number(environ, "SGE_TASK_FIRST") or 1, _number(environ, "SGE_TASK_STEPSIZE") or 1
    if index is None or last is None:
        return _with_count(None if index is None else index - 1, environ, "SGE")
    return (index - first) // step, (last - first) // step + 1


def _lsf(environ: Mapping[str, str]) -> tuple[int, int] | None:
    index, last = _number(environ, "LSB_JOBINDEX"), _number(environ, "LSB_JOBINDEX_END")
    step = _number(environ, "LSB_JOBINDEX_STEP") or 1
    if not index:  # 0: a job that is no array
        return None
    if last is None:
        return _with_count(index - 1, environ, "LSF")
    return (index - 1) // step, (last - 1) // step + 1  # LSF does not tell where an array starts: at 1, we say


def _pair(index: str, count: str) -> Callable[[Mapping[str, str]], tuple[int, int] | None]:
    def read(environ: Mapping[str, str]) -> tuple[int, int] | None:
        i, n = _number(environ, index), _number(environ, count)
        return None if i is None or n is None else (i, n)

    return read


def _srun(environ: Mapping[str, str]) -> tuple[int, int] | None:
    if environ.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in environ:
        return None  # the batch script itself: it runs once, though SLURM_NTASKS tells what srun would start
    count = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    return _pair("SLURM_PROCID", count)(environ)


ARRAYS: dict[str, Callable[[Mapping[str, str]], tuple[int, int] | None]] = {
    "the Slurm array": _slurm_array,
    "the Kubernetes job": lambda e: _with_count(_number(e, "JOB_COMPLETION_INDEX"), e, "Kubernetes"),
    "the AWS Batch array": _aws_batch,
    "the PBS array": lambda e: _with_count(_number(e, "PBS_ARRAY_INDEX"), e, "PBS"),
    "the SGE array": _sge,
    "the LSF array": _lsf,
}
ONE_NODE = ("the Kubernetes job", "the AWS Batch array")
"""Arrays whose tasks have one node each, so that torchrun over several nodes is several of them."""
RANKS: dict[str, Callable[[Mapping[str, str]], tuple[int, int] | None]] = {
    "torchrun": _pair("RANK", "WORLD_SIZE"),
    "Open MPI": _pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "srun": _srun,
}
"""In this order the first that is there wins."""
