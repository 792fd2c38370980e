"""The command as a user runs it: another process, its exit code and what it prints."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.forked import FIRST, Forked

SCRIPT = str(Path(sys.executable).parent / "afno")  # as it is installed


def start(
    *arguments: str, root: Path, env: dict[str, str] | None = None, **options: Any
) -> "Forked | subprocess.Popen[str]":
    """Start a command in `root`: forked unless the interpreter's own start matters, else in a new interpreter."""
    if sys.platform == "linux" and not options and of_interpreter(env or os.environ) == of_interpreter(os.environ):
        return Forked(arguments, root, dict(env or os.environ))
    command = [sys.executable, "-m", "afno_repro", *arguments]
    return subprocess.Popen(
        command,
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def python_path(*folders: object) -> dict[str, str]:
    """An environment in which a new interpreter imports from these folders first."""
    mine = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, folders), *mine])}


def with_path(*folders: Path) -> dict[str, str]:
    """An environment in which a forked command, and what it starts, does."""
    paths = python_path(*folders)["PYTHONPATH"]
    first = f"import os, sys; os.environ['PYTHONPATH'] = {paths!r}; sys.path[:0] = {list(map(str, folders))!r}"
    return {**os.environ, FIRST: first}


def of_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """What the interpreter and its libraries read as they start."""
    return {name: value for name, value in environment.items() if name.startswith(("PYTHON", "LC_", "LANG", "OMP_"))}


def afno(*arguments: str, root: Path, expect: int = 0, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command in `root` and hold it to its exit code; no command may ever show a traceback."""
    process = start(*arguments, root=root, **options)
    out, err = process.communicate(timeout=300)
    done = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    assert "Traceback" not in err, err
    assert done.returncode == expect, f"exit {done.returncode}\n{out}\n{err}"
    return done


def answer(*arguments: str, root: Path, expect: int = 0) -> Any:
    """The JSON value that a command answers with."""
    return json.loads(afno(*arguments, "--json", root=root, expect=expect).stdout)
