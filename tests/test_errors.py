"""Commands in which one call fails lose nothing; and what lets calls fail does so, and sees what is lost."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import crash, errors

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="calls are made to fail by a preloaded library"),
    pytest.mark.skipif(not any(map(shutil.which, errors.COMPILERS)), reason="needs a C compiler"),
]


@pytest.fixture
def folder():
    """A folder whose path is short enough for the sockets of data-loading processes."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def root(folder):
    (folder / "root").mkdir()
    (folder / "root/old").write_text("old")
    return folder / "root"


@pytest.fixture
def faulty(folder, root):
    return errors.Faulty(folder, root)


def python(
    code: str, root: Path, faulty: errors.Faulty, asked: tuple[str, int, int]
) -> "subprocess.CompletedProcess[str]":
    faulty.ask(*asked)
    line, environment = [sys.executable, "-S", "-c", f"import os\n{code}"], {**os.environ, **faulty.environment}
    return subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True)


CALLS = {
    "open": "open('old').close()",
    "read": "os.read(os.open('old', os.O_RDONLY), 3)",
    "write": "os.write(os.open('new', os.O_WRONLY | os.O_CREAT), b'new')",
    "fsync": "os.fsync(os.open('old', os.O_RDONLY))",
    "rename": "os.rename('old', 'new')",
    "link": "os.link('old', 'new')",
    "flock": "import fcntl; fcntl.flock(os.open('old', os.O_RDONLY), fcntl.LOCK_SH)",
    "fork": "os.fork() or os._exit(0)",
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_fails_as_asked_and_is_counted(faulty, root, kind):
    done = python(CALLS[kind], root, faulty, errors.NO_FAULT)
    assert (done.returncode, faulty.delivered, faulty.counts[kind]) == (0, False, 1)
    (root / "new").unlink(missing_ok=True)
    (root / "old").write_text("old")
    done = python(CALLS[kind], root, faulty, (kind, 1, errno.EIO))
    assert (done.returncode, faulty.delivered) == (1, True)
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 5]")


def test_files_elsewhere_are_none_of_its_business(faulty, root, tmp_path):
    code = f"open({str(tmp_path / 'x')!r}, 'w').write('x')"
    assert python(code, root, faulty, ("write", 1, errno.EIO)).returncode == 0
    assert not faulty.delivered


FLUSHED = """
def flush(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
open('careless', 'w').write('never flushed'); os.rename('careless', 'old')
open('careful', 'w').write('flushed'); flush('careful'); flush('.')
open('late', 'w').write('its entry is not flushed'); flush('late')
os.mkdir('folder'); open('folder/inner', 'w').write('x')
os.unlink('careful')
"""


def test_after_a_power_cut_there_is_what_was_flushed_alone(faulty, root):
    disk = errors.Disk(root)
    python(FLUSHED, root, faulty, ("cut", 10**6, 0))
    changes = faulty.counts["cut"]
    shutil.rmtree(root)
    root.mkdir()
    (root / "old").write_text("old")
    disk = errors.Disk(root)
    done = python(f"{FLUSHED}\nopen('one more', 'w')", root, faulty, ("cut", changes + 1, 0))
    assert (done.returncode, faulty.delivered) == (-9, True)
    disk.after_a_power_cut(faulty.shadow)
    # The renamed file's entry was flushed with its folder, but never its content.
    assert {path.name: path.read_text() for path in root.iterdir()} == {"old": "", "careful": "flushed"}


def test_checkpoints_of_a_run_that_is_not_ok_count_as_unfinished_work(root):
    for name, outcome in (("done", "ok"), ("lacked", "out_of_memory"), ("begun", None)):
        (root / f"runs/{name}/checkpoints/step-1").mkdir(parents=True)
        (root / f"runs/{name}/checkpoints/step-1/state.pt").touch()
        if outcome:
            (root / f"runs/{name}/record.json").write_text(f'{{"outcome": "{outcome}"}}')
    assert errors.unfinished(root) == {"lacked", "begun"}


def tried(count: int, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.errors", "--points", str(count), *arguments]
    return subprocess.run(
        command, cwd=crash.CLONE, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True
    )


def test_a_few_points_cost_nothing(folder):
    done = tried(2, folder=folder)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["violations: 0"]), done.stdout + done.stderr
    assert not list(folder.glob("afno-errors-*"))


@pytest.mark.slow
def test_points_of_each_kind_cost_nothing(folder):
    done = tried(44, "--devices", "2", folder=folder)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["violations: 0"]), done.stdout + done.stderr
