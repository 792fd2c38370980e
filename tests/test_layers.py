"""Imports go down only: every import of the package is parsed and held to the order of its rooms."""

import ast
from itertools import takewhile
from pathlib import Path

import pytest

import afno_repro

ROOT = Path(afno_repro.__file__).parent
LAYERS = [
    {"errors", "faults", "escape"},
    {"config", "files", "host", "options"},
    {"contents", "memory", "precision", "threads"},
    {"mixers", "metrics", "data", "fills", "initialise"},
    {"backbones", "heads"},
    {"models", "tasks"},
    {"weights"},
    {"training", "profiling", "visualize", "spec"},
    {"runs"},
    {"tables"},
    {"commands"},
    {"cli"},
]
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py" and path != ROOT / "__init__.py")
TORCHLESS = sorted((ROOT / "spec").glob("*.py")) + sorted((ROOT / "tables").glob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def imports(path: Path, top_only: bool = False) -> set[str]:
    """Modules and names that a file imports as it is imported itself: not inside functions, nor for types alone."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def own(names: set[str]) -> list[list[str]]:
    """The parts of the names that are this package's."""
    return [
        parts
        for parts in (name.split(".") for name in names)
        if parts[0] == "afno_repro" and parts[1:] not in ([], ["__version__"])
    ]


def file_of(parts: list[str]) -> Path | None:
    """The file that a dotted name means, or that holds what it means."""
    for end in (len(parts), len(parts) - 1):
        for path in (ROOT.joinpath(*parts[1:end]).with_suffix(".py"), ROOT.joinpath(*parts[1:end], "__init__.py")):
            if end > 1 and path.is_file():
                return path
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_or_stay_in_their_room(path):
    for parts in own(imports(path)):
        if parts[1] != room(path):
            assert layer(parts[1]) < layer(room(path)), f"{room(path)} imports {'.'.join(parts)}"


def test_no_files_import_each_other_in_a_circle():
    """Not even through functions: what two files need of each other is a third one."""
    needs = {path: {f for parts in own(imports(path)) if (f := file_of(parts)) not in (None, path)} for path in FILES}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " -> ".join(
            str(p.relative_to(ROOT)) for p in (*takewhile(lambda p: p != path, trail[::-1]), path)
        )
        if path not in done:
            for other in needs.get(path, set()):
                visit(other, (*trail, path))
            done.add(path)

    for path in FILES:
        visit(path, ())


def test_every_room_has_its_layer():
    """Prints what each imports, for whoever wants to see it: pytest -s."""
    rooms = {
        name: sorted({parts[1] for path in FILES if room(path) == name for parts in own(imports(path))} - {name})
        for names in LAYERS
        for name in names
    }
    for name in sorted(rooms, key=layer):
        print(f"{layer(name)} {name}: {', '.join(rooms[name]) or 'nothing'}")
    assert set(rooms) == {room(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_library_has_its_place(path):
    relative = str(path.relative_to(ROOT))
    names = {name.split(".")[0] for name in imports(path)}
    assert "pydantic" not in names or relative in (
        "spec/spec.py",
        "spec/claims.py",
        "spec/reader.py",
        "spec/names.py",
        "spec/figures.py",
    )  # a spec and its parts
    assert "yaml" not in names or relative == "spec/tree.py"
    assert "pandas" not in names or relative == "tables/table.py"
    assert "typer" not in names or room(path) in ("commands", "cli")
    assert "rich" not in names or room(path) == "commands"
    assert "matplotlib" not in names or room(path) == "visualize"
    assert not any(name.startswith("torchvision.models") for name in imports(path)) or relative == "backbones/trunks.py"
    assert not any(name.startswith("torch.distributed") for name in imports(path)) or relative == "training/engine.py"
    if room(path) in ("mixers", "backbones", "heads"):
        assert not any(name.startswith("afno_repro.config") for name in imports(path))


@pytest.mark.parametrize("path", TORCHLESS, ids=lambda p: str(p.relative_to(ROOT)))
def test_specs_and_tables_come_without_torch(path):
    """Neither they nor what they import as they are imported, however deep."""
    seen, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        seen.add(current)
        top = imports(current, top_only=True)
        assert not any(name.split(".")[0] in ("torch", "torchvision") for name in top), current
        waiting += [found for parts in own(top) if (found := file_of(parts)) is not None and found not in seen]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_environment_variables_are_read_by_the_command_line_alone(path):
    """But for two files that hand one on: to git less what turns its head, to a process with the GPU it may see."""
    if path in (ROOT / "runs/source.py", ROOT / "runs/workers.py"):
        return
    assert room(path) in ("cli", "commands") or not (
        {"os.environ", "os.getenv"} & imports(path) or "os.environ" in path.read_text()
    )


def test_what_processes_say_to_each_other_is_never_unpickled():
    said = (ROOT / "training/engine.py").read_text()
    assert not [name for name in ("_object", "pickle", "torch.load") if name in said]


def test_no_file_grows_beyond_300_lines():
    assert {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 300} == {}


def test_the_fast_tests_touch_every_folder_of_the_package():
    chosen = [path for path in Path(__file__).parent.rglob("test_*.py") if "pytest.mark.fast" in path.read_text()]
    touched = {parts[1] for path in chosen for parts in own(imports(path))}
    assert {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} <= touched
