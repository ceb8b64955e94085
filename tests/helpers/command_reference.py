"""Write docs/cli.md from the commands' own --help; `--check` exits 1 when the page is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gansegctl.cli import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def help_of(command: click.Command, path: str, parent: click.Context | None = None) -> list[str]:
    """The sections of a command and its subcommands."""
    context = click.Context(
        command, info_name=path.split()[-1], parent=parent, terminal_width=100, max_content_width=100
    )
    lines = [f"## `{path}`", "", "```", command.get_help(context).rstrip(), "```", ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            lines += help_of(command.get_command(context, name), f"{path} {name}", context)
    return lines


def page() -> str:
    """The whole page."""
    return "\n".join(["# Commands", "", "Written by `make docs`; do not edit.", "", *help_of(cli, "gansegctl")])


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text() == page() else "docs/cli.md is out of date: run `make docs`")
    PAGE.write_text(page())
