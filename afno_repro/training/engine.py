"""The process that trains: its device, threads, random states and the signals that ask it to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def start(device: str, threads: int) -> torch.device:
    """Set the number of threads and return the device."""
    torch.set_num_threads(threads)
    return torch.device(device)


def seed_everything(seed: int) -> None:
    """Seed the generators that layers draw from (initial weights, dropout)."""
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The generators' states, for a checkpoint."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of random_states."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


class StopFlag:
    """The first signal that asked this process to stop, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def set(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second one gets the default handling, at once."""
        self.signal = number
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that SIGTERM, SIGINT and SIGUSR1 set inside the block, instead of ending the process."""
    flag = StopFlag()
    before = {number: signal.signal(number, flag.set) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
