"""A command in a process of its own with a limit, of which nothing is left running. Python's own library alone."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRACE_S = 3.0  # after a process is told to end
PASSED = "passed"
RUNNING = set[subprocess.Popen[bytes]]()


def ended(command: Sequence[str], log: Path, limit_s: float, tables: Path) -> str:
    """How a command ended, which wrote into `log`; nothing of it is left running."""
    env = {**os.environ, "AFNO_BENCHMARKS": str(tables), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        RUNNING.add(process)
        try:
            code = process.wait(limit_s)
            return PASSED if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            return f"cut off after {limit_s:.0f} s"
        finally:
            kill(process)
            process.wait()
            RUNNING.discard(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: they share its session, where some have groups of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = stat.read_text(errors="replace").rpartition(")")[2].split()[3]
            if int(session) == process.pid:
                os.kill(int(stat.parent.name), signal.SIGKILL)
