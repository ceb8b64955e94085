"""Text that is made between the marks of a page, the rest being written by hand."""

from __future__ import annotations

from pathlib import Path

from gansegctl.io.atomic import write_text


def fill(page: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- name -->` and `<!-- end of name -->`, which are added at the end where they lack."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = page.read_text() if page.exists() else f"{begin}\n{end}\n"
    if begin not in old:
        old += f"\n{begin}\n{end}\n"
    before, rest = old.split(begin, 1)
    write_text(page, f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")
