"""Fingerprints of files: each is read once, and no change of content passes unseen."""

import os
import sys
import time
from subprocess import PIPE, Popen

import pytest

from afno_repro import contents
from afno_repro.contents import Contents, names_and_contents, sha256_of
from afno_repro.errors import DataError

pytestmark = pytest.mark.fast


class Reader:
    """Counts the files that are read."""

    def __init__(self):
        self.read = []

    def __call__(self, file):
        self.read.append(file.name)
        return sha256_of(file)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_S", 0.0)
    found = [tmp_path / "a/x.png", tmp_path / "a/y.png", tmp_path / "b/x.png"]
    for i, file in enumerate(found):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes([i]) * 100)
    time.sleep(0.02)
    return found


def fingerprint(tmp_path, files, reader):
    return names_and_contents(files, tmp_path, Contents(tmp_path / "memory", reader))


def test_a_file_is_read_once_and_again_when_it_was_written(tmp_path, files):
    reader = Reader()
    before = fingerprint(tmp_path, files, reader)
    assert fingerprint(tmp_path, files, reader) == before
    assert sorted(reader.read) == ["x.png", "x.png", "y.png"]
    times = files[0].stat()
    files[0].write_bytes(b"\7" * 100)
    os.utime(files[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and the same time
    assert fingerprint(tmp_path, files, reader) != before
    assert len(reader.read) == 4


def test_processes_that_start_together_read_each_file_once(tmp_path, files):
    """Each says which files it has read."""
    script = f"""
import sys
from pathlib import Path
from afno_repro import contents
contents.SETTLED_S = 0.0
def read(file):
    print(file.parent.name, file.name, flush=True)
    return contents.sha256_of(file)
sys.stdin.read(1)
root = Path({str(tmp_path)!r})
print("=", contents.names_and_contents(sorted(root.glob("[ab]/*")), root, contents.Contents(root / "memory", read)))
"""
    command = [sys.executable, "-c", script]
    started = [Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(4)]
    for process in started:
        process.stdin.write("\n")
        process.stdin.close()
    said = [line for process in started for line in process.stdout.read().splitlines()]
    assert [process.wait(60) for process in started] == [0] * 4
    assert sorted(line for line in said if line[0] != "=") == ["a x.png", "a y.png", "b x.png"]
    assert {line for line in said if line[0] == "="} == {f"= {fingerprint(tmp_path, files, sha256_of)}"}


def test_a_name_and_the_order_are_part_of_it(tmp_path, files):
    reader = Reader()
    before = fingerprint(tmp_path, files, reader)
    assert fingerprint(tmp_path, files[::-1], reader) != before
    files[0].rename(files[0].with_name("z.png"))
    assert fingerprint(tmp_path, [files[0].with_name("z.png"), *files[1:]], reader) != before


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path, files, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_S", 60.0)
    reader = Reader()
    fingerprint(tmp_path, files, reader)
    fingerprint(tmp_path, files, reader)
    assert len(reader.read) == 6
    assert Contents(tmp_path / "memory").unread(files) == (3, 300)


def test_a_memory_that_is_none_costs_reading_alone(tmp_path, files):
    reader = Reader()
    before = fingerprint(tmp_path, files, reader)
    for memory in (tmp_path / "memory").iterdir():
        memory.write_text('{"x.png": 3}')
    assert fingerprint(tmp_path, files, reader) == before
    assert len(reader.read) == 6


def test_a_file_that_is_gone_is_named(tmp_path, files):
    files[1].unlink()
    with pytest.raises(DataError, match=r"y\.png"):
        fingerprint(tmp_path, files, Reader())
