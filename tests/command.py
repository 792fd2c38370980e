"""The command as a user runs it: another process, its exit code and what it prints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def start(*arguments: str, root: Path, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "afno_repro", *arguments]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options)


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
