"""The order of imports and the promises about the code, read from the source with `ast`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "cli": 6,
    "bench": 5,
    "pipeline": 4,
    "methods": 3,
    "generators": 3,
    "store": 3,
    "students": 3,
    "evaluate": 3,
    "annotation": 3,
    "demo": 3,
    "features": 2,
    "kernels": 1,
}
LEAVES = (
    "contracts",
    "config",
    "errors",
    "labels",
    "presets",
    "io",
    "visualize",
    "__init__",
)


def modules() -> list[tuple[str, Path]]:
    """Dotted name under gansegctl → file, the two mapped folders included."""
    rows = []
    for folder, prefix in (("gansegctl", ""), ("kernels", "kernels."), ("presets", "presets.")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            rows.append((prefix + ".".join(path.relative_to(ROOT / folder).with_suffix("").parts), path))
    return rows


MODULES = modules()


def imports(path: Path) -> set[str]:
    """Every module of ours that a file imports, at its top or inside a function, type checking left out."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return {m.removeprefix("gansegctl.") for m in found if m.startswith("gansegctl.")}


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[m for m, _ in MODULES])
def test_imports_go_down_only(name, path):
    room = name.split(".")[0]
    for other in {i.split(".")[0] for i in imports(path)} - {room}:
        if other in LEAVES or other.startswith("__"):
            continue
        assert other in LAYERS, f"{name} imports {other}, which has no place in the order"
        if room == "__main__":
            assert other == "cli"
        else:
            assert room in LAYERS, f"{name} is a leaf and imports {other}"
            assert LAYERS[other] < LAYERS[room], f"{name} imports {other}: not down"


def test_the_order_covers_every_room():
    rooms = {p.name for p in (ROOT / "gansegctl").iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert (rooms | {"kernels"}) - {"io", "visualize"} == set(LAYERS)


def test_the_library_knows_no_click_and_no_rich():
    for name, path in MODULES:
        if name.split(".")[0] in ("cli", "__main__"):
            continue
        assert not re.search(r"^\s*(import|from) (click|rich|tqdm)\b", path.read_text(), re.M), name


def test_kernels_import_nothing_else_of_ours():
    for name, path in MODULES:
        if name.startswith("kernels"):
            assert {i.split(".")[0] for i in imports(path)} <= {"kernels"}, name


def test_no_pickle_and_no_asserts_in_the_product():
    for name, path in MODULES:
        tree = ast.parse(path.read_text())
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Assert)], (
            f"{name}: raise an error that names a remedy"
        )
        text = path.read_text()
        assert not re.search(r"\bpickle\b\.|import pickle|torch\.(load|save)\(", text), name


def test_files_stay_short():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES}
    assert max(lengths.values()) <= 500
    assert sorted(lengths.values())[len(lengths) // 2] < 150


def test_every_public_function_says_what_it_does():
    silent = []
    for name, path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                documented = ast.get_docstring(node) or any("click" in ast.unparse(d) for d in node.decorator_list)
                silent += [] if documented or name.startswith("cli.options") else [f"{name}.{node.name}"]
    assert silent == []


def test_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text()
    for room in LAYERS:
        assert f"{room}/" in text, f"README.md does not name {room}/"
