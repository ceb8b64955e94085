"""One bash file that submits a preset's stages to Slurm and is each stage's job script."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gansegctl.errors import UsageError
from gansegctl.pipeline.run import Plan

RESTARTS = 50
"""A job that is stopped again and again gives up in the end."""


@dataclass(frozen=True)
class Resources:
    """The resources that each job asks for; empty texts are left to the cluster's defaults."""

    tasks: int = 8
    parallel: int = 0  # tasks at a time; 0 = as many as the cluster gives
    time: str = "04:00:00"
    gres: str = "gpu:1"
    cpus: int = 4
    mem: str = ""
    partition: str = ""
    account: str = ""
    ranks: int = 1  # processes of distillation, one a GPU, on one node
    setup: str = ""  # a line of shell before each stage, as `source .venv/bin/activate`

    def __post_init__(self) -> None:
        for name in ("time", "gres", "mem", "partition", "account"):
            value = getattr(self, name)
            if value and not re.fullmatch(r"[\w:.,+@=/\[\]-]+", value, re.ASCII):
                raise UsageError(f"got --{name} {value!r}", wanted="what sbatch takes there, without spaces")


def batch_script(
    plan: Plan,
    preset: str,
    out: Path,
    resources: Resources,
    generator: str | None = None,
    masks: str | None = None,
) -> str:
    """The script's text. preset, masks: as given on the command line, absolute where they are files.

    `bash FILE` submits: generation as an array that is put back into the queue when its time is up, then what the
    preset goes on with, each job when the one before has succeeded.
    """
    paints = plan.annotate is not None and plan.annotate.shots > 0 and not plan.annotate.masks
    stages = ["generate"] + (["annotate"] if plan.annotate else [])
    if plan.annotate and plan.distill and not paints:
        stages.append("distill")
    run = ["gansegctl", "run", preset, "-o", str(out)]
    run += (["--generator", generator] if generator else []) + (["--masks", masks] if masks else [])
    command = " ".join(shlex.quote(word) for word in run)
    array = f"0-{resources.tasks - 1}" + (f"%{resources.parallel}" if resources.parallel else "")
    name = re.sub(r"[^\w.-]", "-", plan.name)
    lines = [
        "#!/bin/bash",
        *_directives(resources),
        f"# {plan.name} on Slurm, made by `gansegctl sbatch`. Keep this file and run it: bash FILE",
        "set -euo pipefail",
        f"out={shlex.quote(str(out))}",
        f"tasks={resources.tasks}",
        "",
        _HELPERS.strip("\n"),
        "",
        'case "${1:-submit}" in',
        "submit)",
        '  mkdir -p "$out/logs"',
        f"  generate=$(queue {name}-generate --array={array} -- generate)",
        '  echo "generate: $generate"',
    ]
    for before, stage in pairwise(stages):
        depends = f'--dependency=afterok:"${before}" --kill-on-invalid-dep=yes'
        more = _for_ranks(resources) if stage == "distill" else ""
        lines += [f"  {stage}=$(queue {name}-{stage} {depends}{more} -- {stage})", f'  echo "{stage}: ${stage}"']
    if paints:
        lines.append('  echo "when annotate is done: paint the masks it wrote, and print this again with --masks"')
    lines += [
        "  ;;",
        "generate)",
        *([f"  {resources.setup}"] if resources.setup else []),
        f'  stage {command} --until generate --task "$SLURM_ARRAY_TASK_ID/$tasks"',
        "  ;;",
    ]
    for stage in stages[1:]:
        until = "" if stage == stages[-1] else f" --until {stage}"
        several = stage == "distill" and resources.ranks > 1
        start = f"torchrun --standalone --nproc-per-node {resources.ranks} -m {command}" if several else command
        lines += [
            f"{stage})",
            *([f"  {resources.setup}"] if resources.setup else []),
            f"  stage {start}{until}",
            "  ;;",
        ]
    lines += ["*)", '  echo "got stage $1; known: submit ' + " ".join(stages) + '" >&2', "  exit 2", "  ;;", "esac"]
    return "\n".join(lines) + "\n"


def _for_ranks(r: Resources) -> str:
    """The resources of a job of several processes on one node: as many GPUs and cores for each as one job has."""
    if r.ranks == 1:
        return ""
    kind = re.sub(r":\d+$", "", r.gres)
    return (f" --gres={kind}:{r.ranks}" if r.gres else "") + f" --cpus-per-task={r.ranks * r.cpus}"


def _directives(r: Resources) -> list[str]:
    asked = {
        "partition": r.partition,
        "account": r.account,
        "time": r.time,
        "gres": r.gres,
        "cpus-per-task": str(r.cpus),
        "mem": r.mem,
        "ntasks": "1",
        "open-mode": "append",
        "signal": "B:TERM@120",
    }
    return [f"#SBATCH --{key}={value}" for key, value in asked.items() if value] + ["#SBATCH --requeue"]


_HELPERS = f"""
queue() {{ # NAME, sbatch's flags, --, this file's own argument: submits, prints the job's id
  local name=$1 flags=()
  shift
  while [ "$1" != "--" ]; do flags+=("$1"); shift; done
  local id
  id=$(sbatch --parsable --job-name="$name" --output="$out/logs/%x-%j.log" "${{flags[@]}}" "$0" "$2") || return
  echo "${{id%%;*}}"
}}

stage() {{ # runs a command; when stopped (time is nearly up), it lets the command end and goes back into the queue
  local stopped=0 status=0 child=""
  trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
  "$@" &
  child=$!
  [ "$stopped" = 0 ] || kill -TERM "$child" 2>/dev/null || true
  wait "$child" || status=$?
  if [ "$stopped" = 1 ]; then
    status=0 # that of the wait which TERM broke off says nothing of the command
    wait "$child" || status=$?
    if [ "$status" -ne 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ]; then
      scontrol requeue "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}"
      sleep 60 # Slurm ends this script meanwhile
    fi
  fi
  return "$status"
}}
"""
