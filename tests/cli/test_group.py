"""The group of commands: help without heavy imports, unknown commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gansegctl.cli import COMMANDS

HEAVY = ("torch", "numpy", "h5py", "PIL", "rich", "tqdm")


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


BAD = {
    "an unknown command": (("genrate",), 2, "did you mean 'generate'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])
