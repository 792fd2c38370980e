"""Files on strange file systems and beside other processes: what is waited for, flushed, read and left alone."""

import errno
import fcntl
import multiprocessing
import os

import pytest

from afno_repro import files
from afno_repro.errors import LockedError, StorageError
from afno_repro.files import alone_in, check_regular, make_folder, read_regular, sync_folder, write_atomic

pytestmark = pytest.mark.fast


def hold(folder, taken, done):
    with alone_in(folder):
        taken.set()
        done.wait(60)


@pytest.fixture
def held(tmp_path):
    """A folder in which another process writes, and how to let that one end."""
    context = multiprocessing.get_context("fork")
    taken, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, taken, done))
    process.start()
    assert taken.wait(60)
    yield tmp_path, process.pid, done
    done.set()
    process.join()


def test_a_folder_held_elsewhere_says_by_whom_and_ends_with_6_after_a_stated_time(held, monkeypatch, capsys):
    folder, pid, _ = held
    monkeypatch.setattr(files, "SAY_AFTER_S", 0.1)
    monkeypatch.setattr(files, "WAIT_S", 0.4)
    with pytest.raises(LockedError, match=f"{folder} is held by (process {pid}|another process) for") as error:
        alone_in(folder).__enter__()
    assert error.value.exit_code == 6
    told = capsys.readouterr().err
    assert told.count("is held by") == 1
    assert "waiting for it, at most" in told


def test_a_folder_that_becomes_free_is_taken_without_a_word(held, capsys):
    folder, _, done = held
    done.set()
    with alone_in(folder):
        pass
    assert capsys.readouterr().err == ""


def test_what_is_locked_is_a_file_for_nfs_knows_a_lock_on_a_folder_on_one_machine_alone(tmp_path):
    with alone_in(tmp_path), (tmp_path / ".lock").open("r+") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_nothing_waits_more_than_ten_seconds_without_a_word():
    assert files.SAY_AFTER_S <= 10


def test_a_file_system_without_locks_is_told_as_one_of_storage(tmp_path, monkeypatch):
    def without(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(StorageError, match=f"{tmp_path}: No locks available"):
        alone_in(tmp_path).__enter__()


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_on_which_folders_cannot_be_flushed_is_written_to_all_the_same(answer, tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(answer, os.strerror(answer))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "new" / "table.csv", "ours")
    assert (tmp_path / "new" / "table.csv").read_text() == "ours"


def test_any_other_answer_is_an_error(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_the_parents_of_new_folders_are_flushed_from_the_first_to_the_last(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    make_folder(tmp_path / "a/b/c")
    assert flushed == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b")]
    flushed.clear()
    make_folder(tmp_path / "a/b/c")
    assert flushed == []
    write_atomic(tmp_path / "results/tiny/table.csv", "x")
    assert {str(tmp_path), str(tmp_path / "results"), str(tmp_path / "results/tiny")} <= set(flushed)


def test_only_regular_files_of_a_limited_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12345")
    for path, told in ((tmp_path / "pipe", "not a regular file"), (tmp_path, "Is a directory")):
        with pytest.raises(OSError, match=told):
            check_regular(path)
    with pytest.raises(OSError, match="at most 4 are read"):
        read_regular(tmp_path / "file", 4)
    assert read_regular(tmp_path / "file", 5) == b"12345"
