"""The Slurm script: what it submits, and how a stopped job goes back into the queue; sbatch and scontrol are faked."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from gansegctl.config import AnnotateSettings, DistillSettings, GenerateSettings
from gansegctl.errors import UsageError
from gansegctl.pipeline.run import Plan
from gansegctl.pipeline.sbatch import Resources, batch_script

FULL = Plan("de mo", GenerateSettings(), AnnotateSettings(masks="demo"), DistillSettings())

FAKES = {
    "sbatch": 'echo "sbatch $*" >> "$LOG"; echo "$(wc -l < "$LOG");cluster"',
    "scontrol": 'echo "scontrol $*" >> "$LOG"',
    "sleep": "exit 0",
    "gansegctl": (
        'echo "gansegctl $*" >> "$LOG"; trap "exit 143" TERM; echo up > "$LOG.up"\n'
        'if [ "${WAIT:-}" ]; then while :; do read -t 0.05 <> <(:) || true; done; fi; exit "${STATUS:-0}"'
    ),
}


@pytest.fixture
def cluster(tmp_path):
    """Environment with fake commands first in PATH; what they are called with goes to LOG."""
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}


def script(tmp_path, plan=FULL, **asked) -> Path:
    path = tmp_path / "job.sh"
    path.write_text(batch_script(plan, "demo", tmp_path / "my run", Resources(**asked), "my net.safetensors"))
    return path


def log(cluster) -> list[str]:
    return Path(cluster["LOG"]).read_text().splitlines()


def bash(path, cluster, *words, **more):
    return subprocess.run(
        ["bash", str(path), *words], env=cluster | more, capture_output=True, text=True, check=False, timeout=30
    )


def test_a_job_that_is_refused_ends_the_submission(tmp_path, cluster):
    refusing = 'case "$*" in *annotate*) echo "sbatch: error: no such node" >&2; exit 1;; esac; echo 1'
    (tmp_path / "sbatch").write_text(f"#!/bin/bash\n{refusing}\n")
    done = bash(script(tmp_path), cluster)
    assert done.returncode == 1 and "no such node" in done.stderr
    assert done.stdout == "generate: 1\n"


def test_it_submits_every_stage_after_the_one_before(tmp_path, cluster):
    path = script(tmp_path, tasks=5, parallel=2)
    done = bash(path, cluster)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "generate: 1\nannotate: 2\ndistill: 3\n"
    first, second, third = log(cluster)
    assert "--job-name=de-mo-generate" in first and "--array=0-4%2" in first and first.endswith(f"{path} generate")
    assert "--dependency=afterok:1" in second and second.endswith("annotate")
    assert "--dependency=afterok:2" in third and third.endswith("distill")
    assert f"--output={tmp_path}/my run/logs/%x-%j.log" in first and (tmp_path / "my run/logs").is_dir()


def test_each_stage_runs_its_part(tmp_path, cluster):
    path = script(tmp_path, tasks=5, setup="export SET=up")
    assert bash(path, cluster, "generate", SLURM_ARRAY_TASK_ID="3").returncode == 0
    assert bash(path, cluster, "annotate").returncode == 0
    assert bash(path, cluster, "distill").returncode == 0
    run = f"gansegctl run demo -o {tmp_path}/my run --generator my net.safetensors"
    assert log(cluster) == [f"{run} --until generate --task 3/5", f"{run} --until annotate", run]
    assert path.read_text().count("export SET=up") == 3


def test_a_failure_fails_the_job_and_is_not_queued_again(tmp_path, cluster):
    done = bash(script(tmp_path), cluster, "generate", SLURM_ARRAY_TASK_ID="0", STATUS="4")
    assert done.returncode == 4 and not any("scontrol" in line for line in log(cluster))


@pytest.mark.parametrize(("restarts", "queued"), [("0", True), ("50", False)])
def test_a_job_whose_time_is_up_stops_its_command_and_goes_back_into_the_queue(tmp_path, cluster, restarts, queued):
    environ = cluster | {
        "WAIT": "1",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_JOB_ID": "79",
        "SLURM_RESTART_COUNT": restarts,
    }
    job = subprocess.Popen(["bash", str(script(tmp_path)), "generate"], env=environ)
    up = Path(cluster["LOG"] + ".up")
    for _ in range(200):
        if up.exists():
            break
        time.sleep(0.05)
    job.terminate()
    assert job.wait(20) == 143
    assert ("scontrol requeue 77_2" in log(cluster)) is queued


def test_the_directives_come_first_and_ask_for_what_was_said(tmp_path):
    text = script(tmp_path, time="01:00:00", gres="gpu:a100:2", mem="64G", partition="gpu", account="lab").read_text()
    head = text.split("set -euo")[0].splitlines()
    assert head[0] == "#!/bin/bash"
    for flag in ("time=01:00:00", "gres=gpu:a100:2", "mem=64G", "partition=gpu", "account=lab", "signal=B:TERM@120"):
        assert f"#SBATCH --{flag}" in head
    assert "#SBATCH --requeue" in head
    assert (
        "--mem" not in script(tmp_path, gres="").read_text() and "--gres" not in script(tmp_path, gres="").read_text()
    )


def test_what_a_directive_cannot_hold_is_refused():
    with pytest.raises(UsageError, match="--partition"):
        Resources(partition="gpu\n#SBATCH --wrap=x")


def test_a_preset_that_is_to_be_painted_ends_with_its_exemplars(tmp_path, cluster):
    path = script(tmp_path, Plan("p", GenerateSettings(), AnnotateSettings(), DistillSettings()))
    done = bash(path, cluster)
    assert len(log(cluster)) == 2 and "paint the masks" in done.stdout


def test_a_preset_that_only_generates(tmp_path, cluster):
    path = script(tmp_path, Plan("p", GenerateSettings()))
    assert bash(path, cluster).returncode == 0 and len(log(cluster)) == 1
    done = bash(path, cluster, "annotate")
    assert done.returncode == 2 and "got stage annotate" in done.stderr
