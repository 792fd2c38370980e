"""Imports go down only: every import of the package is parsed and held to the order of its layers."""

import ast
from pathlib import Path

import pytest

import afno_repro

ROOT = Path(afno_repro.__file__).parent
LAYERS = [
    {"errors", "faults"},
    {"config", "files", "options"},
    {"mixers", "metrics", "data", "fills"},
    {"backbones", "heads"},
    {"models", "tasks", "formats"},
    {"weights"},
    {"training", "profiling", "visualize"},
    {"suite"},
    {"arguments", "session"},
    {"tools"},
    {"cli"},
]
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name not in ("__main__.py",) and path != ROOT / "__init__.py")
TORCHLESS = ["spec", "tree", "resolve", "plan", "store", "table", "render", "compare", "reproduce", "places", "answers", "tool_answers", "terminal"]


def layer(part: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part in names)


def imports(path: Path, top_only: bool = False) -> set[str]:
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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_or_stay_in_their_package(path):
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "afno_repro" and len(parts) > 1 and parts[1] != own:
            assert layer(parts[1]) < layer(own), f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_library_has_its_place(path):
    relative = str(path.relative_to(ROOT))
    names = {name.split(".")[0] for name in imports(path)}
    below_suite = not relative.startswith(("suite", "cli", "arguments", "session", "tools"))
    assert not (below_suite and names & {"yaml", "pydantic", "typer", "rich", "pandas"})
    assert "pydantic" not in names or relative in ("suite/spec.py", "suite/names.py", "suite/pictured.py")  # a spec and its parts
    assert "yaml" not in names or relative == "suite/tree.py"
    assert "pandas" not in names or relative == "suite/table.py"
    assert "typer" not in names or relative in ("cli.py", "arguments.py", "session.py", "tools.py")
    assert "matplotlib" not in names or relative.startswith("visualize")
    assert not any(name.startswith("torchvision.models") for name in imports(path)) or relative == "backbones/trunks.py"
    assert not any(name.startswith("torch.distributed") for name in imports(path)) or relative == "training/engine.py"
    if relative.startswith(("mixers", "backbones", "heads")):
        assert not any(name.startswith("afno_repro.config") for name in imports(path))


@pytest.mark.parametrize("name", TORCHLESS)
def test_what_report_and_list_need_does_not_import_torch(name):
    top = imports(ROOT / "suite" / f"{name}.py", top_only=True)
    assert not any(n.split(".")[0] == "torch" for n in top)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_environment_variables_are_read_by_the_command_line_alone(path):
    assert path.name == "cli.py" or not ({"os.environ", "os.getenv"} & imports(path) or "os.environ" in path.read_text())


def test_what_processes_say_to_each_other_is_never_unpickled():
    said = (ROOT / "training/engine.py").read_text()
    assert not [name for name in ("_object", "pickle", "torch.load") if name in said]


def test_no_file_grows_beyond_260_lines():
    assert {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 260} == {}
