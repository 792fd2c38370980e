"""Threads of the CPU's operations."""

import threading

import pytest
import torch

from afno_repro.errors import StorageError, refusal
from afno_repro.threads import use_threads


def test_operations_take_as_many_threads_as_are_asked_for():
    before, others = torch.get_num_threads(), threading.active_count()
    try:
        use_threads(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threading.active_count() == others


def test_a_system_that_starts_no_more_threads_is_a_refusal_and_not_the_librarys_end_of_the_process(monkeypatch):
    before, start, started = torch.get_num_threads(), threading.Thread.start, []

    def only_two(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", only_two)
    try:
        with pytest.raises(RuntimeError) as error:
            use_threads(4)
    finally:
        torch.set_num_threads(before)
    assert isinstance(refusal(error.value), StorageError)
    assert not any(thread.is_alive() for thread in started)
