"""The documentation says what the program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from gansegctl.cli import COMMANDS
from gansegctl.errors import ExitStatus

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_reference_is_current():
    command = [sys.executable, ROOT / "tests" / "helpers" / "command_reference.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_is_documented():
    reference, readme = (ROOT / "docs" / "cli.md").read_text(), (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"## `gansegctl {name}`" in reference
        assert re.search(rf"`?gansegctl {name}\b|\| `{name}", readme), f"README.md does not name {name}"


def test_the_two_commands_and_the_exit_statuses_are_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.M)
    for status in ExitStatus:
        assert re.search(rf"\| {int(status)} \|", readme), f"README.md does not list exit status {int(status)}"


def test_links_inside_the_repository_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_help_lists_the_targets():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("help", "demo", "test", "check", "bench", "docs", "wheel", "gpu-check"):
        assert re.search(rf"^{target}\s", done.stdout, re.M)
