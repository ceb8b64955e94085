"""Every command and every Python block of README and docs, on the demo.

Blocks marked `sh` and `python` run, in the order of their page, in a folder of their own; counts and steps are reduced
here and nowhere else. Command lines in other blocks (they need a cluster, a GPU or files of the reader's) are parsed
with the flags of the command.
"""

from __future__ import annotations

import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from gansegctl.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "cli.md"),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
FEW = {  # what a command is given besides, so that it takes a second here
    "generate": ("--shard-size", "6"),
    "annotate": ("--set", "steps=3"),
    "distill": ("--steps", "3"),
    "eval": ("--bootstrap", "3"),
    "project": ("--steps", "3", "--calibration", "0"),
}
COUNT = re.compile(r"^(-n|--num)$")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return FENCE.findall(page.read_text())


def command_lines(text: str) -> list[list[str]]:
    """The words of every `gansegctl` line of a block: continued lines joined, comments and redirections dropped."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.strip().startswith("gansegctl ")]
    ends = (">", ">>", "|", "&&", ";")
    return [words[: next((i for i, w in enumerate(words) if w in ends), len(words))] for words in found]


LINES = [(page.name, words) for page in PAGES for _, text in blocks(page) for words in command_lines(text)]


def check(words: list[str]) -> None:
    """Raises click's usage error unless a command takes these flags, and these choices."""
    command = import_module(f"gansegctl.cli.{words[1]}").command
    rest = words[2:]
    if isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    context = click.Context(command, info_name=words[1])
    values, left, _ = command.make_parser(context).parse_args(list(rest))
    assert left == []
    for parameter in command.params:
        given = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and given is not None:
            for value in given if isinstance(given, list | tuple) else [given]:
                parameter.type.convert(value, parameter, context)


@pytest.mark.parametrize(("page", "words"), LINES, ids=[f"{p}: {' '.join(w)}" for p, w in LINES])
def test_every_command_line_of_a_page_is_one_that_the_program_takes(page, words):
    assert words[1] in COMMANDS
    check(words)


def test_a_line_that_it_does_not_take_is_found():
    with pytest.raises(click.UsageError):
        check(["gansegctl", "generate", "--generatr", "demo"])
    with pytest.raises(click.UsageError):
        check(["gansegctl", "generate", "--noise", "loud"])
    assert command_lines("gansegctl a b \\\n  --c 'd e'  # why\nls\ngansegctl x > y\n") == [
        ["gansegctl", "a", "b", "--c", "d e"],
        ["gansegctl", "x"],
    ]


def run(words: list[str]) -> None:
    """One command line in this process, reduced. AssertionError unless it ends with 0."""
    words = list(words[1:])
    for i, word in enumerate(words):
        if COUNT.match(word):
            words[i + 1] = "12"
    with pytest.raises(SystemExit) as stopped:
        main([*words, *FEW.get(words[0], ())])
    assert not stopped.value.code, " ".join(words)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """What the pages speak of: dataset/ with pairs, student.safetensors, images/, painted/."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in blocks(ROOT / "README.md"):
            if line[0] == "sh" and "generate" in line[1]:
                for words in command_lines(line[1])[:3]:
                    run(words)
    (folder / "images").mkdir()
    (folder / "painted").mkdir()
    stream = np.random.RandomState(0)
    for i in range(2):
        image = Image.fromarray(stream.randint(0, 255, (64, 64, 3)).astype(np.uint8))
        image.save(folder / "images" / f"{i}.png")
    return folder


RUNNABLE = [p for p in PAGES if any(language in ("sh", "python") for language, _ in blocks(p))]


@pytest.mark.parametrize("page", RUNNABLE, ids=[p.name for p in RUNNABLE])
def test_the_blocks_of_a_page_run(page, workspace, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "w"
    shutil.copytree(workspace, folder)
    if page.name == "README.md":  # it begins with nothing but the reader's images
        shutil.rmtree(folder / "dataset")
        (folder / "student.safetensors").unlink()
    monkeypatch.chdir(folder)
    for language, text in blocks(page):
        if language == "sh":
            for words in command_lines(text):
                run(words)
        elif language == "python":
            exec(compile(text, str(page), "exec"), {"__name__": "__main__"})


def test_the_first_screen_holds_what_it_promises():
    lines = (ROOT / "README.md").read_text().splitlines()[:80]
    screen = "\n".join(lines)
    assert screen.count("![") == 1 and (ROOT / re.search(r"!\[.*?\]\((.*?)\)", screen).group(1)).is_file()
    assert "make demo" in screen and "make test" in screen
    main_job = next(text for language, text in FENCE.findall(screen) if language == "sh")
    assert len(command_lines(main_job)) == 5
    assert len(re.findall(r"^\|---", screen, re.M)) == 1 and "```python" in screen
