"""The order of imports and the promises about the code, read from the source with `ast`."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
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
LEAVES = ("contracts", "config", "choices", "errors", "io", "labels", "presets", "version", "visualize", "__init__")
LONGEST_FILE = 400
MOST_FILES = 20
ONE_FILE_A_COMMAND = ("gansegctl/cli", "tests/cli")
CODE = (".py", ".cu", ".cuh", ".js", ".css", ".html")
ROOMS_OF_PIPELINE = {  # beside the commands' own names; the tree of the README says what they are
    "generate": {"stage", "job", "plan", "shards", "batch_size", "filters", "writer", "contact_sheet"},
    "annotate": {"stage", "source", "exemplars", "selection", "real_images", "regions", "adversary", "ui"},
    "distill": {"stage", "pairs", "columns", "unlabelled"},
    "project": {"stage", "projector"},
    "compare": {"stage", "measure", "table"},
    "demo": {"run", "scenes"},
    "inputs": {"generators", "images", "labelled_sets"},
    "runtime": {"tasks", "memory"},
    "": {"classes", "evaluate", "labelling", "merge", "pretrain", "select", "to_onnx"},
}


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
    assert (rooms | {"kernels"}) - set(LEAVES) == set(LAYERS)


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


def graph() -> dict[str, set[str]]:
    """File → the files of ours that it imports: at its top, in functions, and for the type checker alone."""
    names = {name.removesuffix(".__init__") for name, _ in MODULES}
    found = {}
    for name, path in MODULES:
        me = name.removesuffix(".__init__")
        found[me] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gansegctl"):
                module = node.module.removeprefix("gansegctl").removeprefix(".")
                below = {f"{module}.{a.name}".removeprefix(".") for a in node.names}
                found[me] |= (below & names) or {module}
            elif isinstance(node, ast.Import):
                found[me] |= {a.name.removeprefix("gansegctl.") for a in node.names} & names
        found[me] -= {me, ""}
    return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Every group of names that lead back to each other."""

    def reached(start: str) -> set[str]:
        seen, left = set(), [start]
        while left:
            for other in arrows.get(left.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    left.append(other)
        return seen

    reach = {name: reached(name) for name in arrows}
    groups = {tuple(sorted(o for o in reach[n] if n in reach.get(o, ()))) for n in arrows if n in reach[n]}
    return [list(g) for g in sorted(groups)]


def boxes(arrows: dict[str, set[str]], room: str) -> dict[str, set[str]]:
    """The same for a room alone: its files, and each of its folders as one box."""
    depth = len(room.split("."))

    def box(name: str) -> str | None:
        parts = name.split(".")
        return ".".join(parts[: depth + 1]) if name.startswith(room + ".") else None

    found: dict[str, set[str]] = {}
    for name, others in arrows.items():
        if box(name):
            found.setdefault(box(name), set()).update({box(o) for o in others if box(o)} - {box(name)})
    return found


def test_what_finds_circles_finds_them():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    upward = {"room.part.x": {"room.y"}, "room.y": {"room.part.z"}, "room.part.z": set()}
    assert circles(upward) == [] and circles(boxes(upward, "room")) == [["room.part", "room.y"]]


def test_no_circle_of_files_anywhere():
    assert circles(graph()) == []
    names = {".".join(Path(f).with_suffix("").parts): ROOT / f for f in tracked(".py") if f.startswith("benchmarks/")}
    arrows = {}
    for name, path in names.items():
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.module]
        arrows[name] = {m for n in nodes for m in (n.module, *(f"{n.module}.{a.name}" for a in n.names)) if m in names}
    assert circles(arrows) == []


def test_no_import_goes_upwards_inside_a_room():
    arrows = graph()
    rooms = sorted({".".join(name.split(".")[:i]) for name in arrows for i in range(1, name.count(".") + 1)})
    assert {room: found for room in rooms if (found := circles(boxes(arrows, room)))} == {}


def tracked(*suffixes: str) -> list[str]:
    """Files of the repository, from its root; those that are about to be added too."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [f for f in done.stdout.splitlines() if f.endswith(suffixes) and (ROOT / f).is_file()]


def test_files_stay_short():
    long = {f: n for f in tracked(*CODE) if (n := len((ROOT / f).read_text().splitlines())) > LONGEST_FILE}
    assert long == {}
    lengths = sorted(len(path.read_text().splitlines()) for _, path in MODULES)
    assert lengths[len(lengths) // 2] < 120


def significant(text: str) -> list[str]:
    """Lines of code without imports, comments and lone punctuation, white space at their ends dropped."""
    imported: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= set(range(node.lineno, node.end_lineno + 1))
    lines = [line.strip() for i, line in enumerate(text.splitlines(), 1) if i not in imported]
    return [line for line in lines if re.search(r"\w", line) and not line.startswith("#")]


def repeated(texts: dict[str, str], run: int = 6) -> dict[str, set[str]]:
    """The first line of every run of lines that stands in two texts or more → their names."""
    places: dict[tuple[str, ...], set[str]] = {}
    for name, text in texts.items():
        lines = significant(text)
        for i in range(len(lines) - run + 1):
            places.setdefault(tuple(lines[i : i + run]), set()).add(name)
    return {lines[0]: names for lines, names in places.items() if len(names) > 1}


def test_no_six_lines_stand_in_two_files():
    six = "\n".join(f"x{i} = {i}" for i in range(6))
    assert repeated({"a": six, "b": "y = 1\n" + six}) == {"x0 = 0": {"a", "b"}}
    assert repeated({"a": six, "b": six.replace("x5", "y5")}) == {}
    assert repeated({name: path.read_text() for name, path in MODULES}) == {}


def test_rooms_stay_small():
    rooms = Counter(str(Path(f).parent) for f in tracked(*CODE))
    assert {r: n for r, n in rooms.items() if n > MOST_FILES and r not in ONE_FILE_A_COMMAND} == {}


def test_every_file_of_cli_and_pipeline_is_called_as_its_command():
    from gansegctl.cli import COMMANDS

    files = {p.stem for p in (ROOT / "gansegctl" / "cli").glob("*.py")} - {"__init__", "console", "options"}
    assert files == set(COMMANDS)
    strange = []
    for path in (ROOT / "gansegctl" / "pipeline").rglob("*.py"):
        folder = path.parent.name if path.parent.name != "pipeline" else ""
        allowed = ROOMS_OF_PIPELINE.get(folder, set()) | ({*COMMANDS} if not folder else set()) | {"__init__"}
        strange += [] if path.stem in allowed else [str(path.relative_to(ROOT))]
    assert strange == []


def test_the_tests_mirror_the_rooms():
    rooms = {p.name for p in (ROOT / "gansegctl").iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    rooms |= {"kernels", "benchmarks", "helpers", "gpu", "slurm", "__pycache__"}
    assert {p.name for p in (ROOT / "tests").iterdir() if p.is_dir()} - rooms == set()
    outside = [str(p) for p in (ROOT / "docs").rglob("*.py")]
    assert outside == [], "docs/ holds pages: programs that measure lie in benchmarks/"


PATH = re.compile(r"(?<![\w./-])(?:gansegctl|kernels|presets|tests|benchmarks|docs)/[\w./-]*[\w/]")


def test_pages_name_only_paths_that_exist():
    missing = []
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]:
        for path in PATH.findall(page.read_text()):
            known = "NAME" in path or (ROOT / path).exists()
            missing += [] if known else [f"{page.name}: {path}"]
    assert missing == []


def test_every_public_function_says_what_it_does():
    silent = []
    for name, path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                documented = ast.get_docstring(node) or any(
                    word in ast.unparse(d) for d in node.decorator_list for word in ("click", "overload")
                )
                silent += [] if documented or name.startswith("cli.options") else [f"{name}.{node.name}"]
    assert silent == []


def test_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text()
    for room in LAYERS:
        assert f"{room}/" in text, f"README.md does not name {room}/"
