"""What is known of the code that made a number: its commit as the command started, and its source."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from afno_repro.runs import source
from afno_repro.runs.source import PACKAGE, code_version, source_hash, tokens_hash

CODE = '"""Doc."""\nimport os\n\n\ndef f(a, b):\n    """Doc."""\n    return f"{a!r:>{b}}{{}}" + "x"\n'


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace('    """Doc."""\n', ""),
        CODE.replace("import os", "import os  # a comment"),
        CODE.replace("f(a, b)", "f(\n    a, b\n)"),
        CODE.replace("\n\n\n", "\n# a comment\n\n"),
        CODE.replace('"""Doc."""\nimport', '"""Another,\nof two lines."""\nimport'),
    ],
)
def test_comments_docstrings_and_line_breaks_are_no_source(other):
    assert tokens_hash(other) == tokens_hash(CODE)


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("{a!r", "{b!r"),
        CODE.replace('"x"', '"y"'),
        CODE.replace("{{}}", "{{}} "),
        CODE.replace("import os", "import sys"),
        CODE.replace("    return", "    return\n    return"),
    ],
)
def test_whatever_does_something_is_source(other):
    assert tokens_hash(other) != tokens_hash(CODE)


@pytest.mark.parametrize("python", ["python3.12", "python3.13", "python3.14"])
def test_every_python_sees_the_same_source(python, tmp_path):
    script = "from afno_repro.runs.source import source_hash; print(source_hash())"
    unread = {"PYTHONPYCACHEPREFIX": str(tmp_path)}  # where nothing is remembered
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE.parent), **unread}
    try:
        done = subprocess.run([python, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    except OSError:
        pytest.skip(f"no {python} here")
    if done.returncode:
        pytest.skip(f"{python} cannot be run")
    source_hash.cache_clear()
    assert done.stdout.strip() == source_hash()


@pytest.fixture
def checkout(tmp_path):
    """A checkout of this package alone; asks another interpreter what it knows of its code."""
    root = tmp_path / "checkout"
    (root / "afno_repro/runs").mkdir(parents=True)
    for name in (
        "__init__.py",
        "contents.py",
        "errors.py",
        "faults.py",
        "files.py",
        "runs/__init__.py",
        "runs/source.py",
    ):
        (root / "afno_repro" / name).write_text((PACKAGE / name).read_text())
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "First")
    return root


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@x.x")
    return subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True).stdout


def known(root: Path, **environment: str) -> dict:
    script = "import json; from afno_repro.runs.source import code_version; print(json.dumps(code_version()))"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, "PYTHONPATH": str(root), **environment},
        cwd=root.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_commit_is_that_of_the_package_s_own_checkout_whatever_the_environment_says(checkout, tmp_path):
    commit = git(checkout, "rev-parse", "HEAD").strip()
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-qm", "Other", "--allow-empty")
    found = known(checkout, GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other))
    assert (found["commit"], found["dirty"]) == (commit, False)
    (checkout / "afno_repro/faults.py").write_text((PACKAGE / "faults.py").read_text() + "MORE = 1\n")
    changed = known(checkout)
    assert (changed["commit"], changed["dirty"]) == (commit, True)
    assert changed["source"] != found["source"]


def test_a_package_inside_another_repository_has_no_commit_and_says_why(tmp_path, checkout):
    inner = tmp_path / "outer/site/checkout"
    inner.parent.mkdir(parents=True)
    git(tmp_path / "outer", "init", "-q")
    git(tmp_path / "outer", "commit", "-qm", "Other", "--allow-empty")
    (checkout / ".git").rename(tmp_path / "gone")
    checkout.rename(inner)
    found = known(inner)
    assert found["commit"] is None
    assert "no part of the checkout" in found["code"]


def test_a_checkout_of_another_owner_is_unknown_and_says_why(checkout):
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a folder away")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 65534, 65534)
    found = known(checkout, HOME=str(checkout.parent))
    assert found["commit"] is None
    assert "another user" in found["code"]


def test_it_is_asked_once_so_that_a_later_commit_is_not_named(monkeypatch):
    code_version.cache_clear()
    first = code_version()
    monkeypatch.setattr(source, "_git", lambda *arguments: ("f" * 40, ""))
    assert code_version() == first
