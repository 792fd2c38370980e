"""Signals that ask a training to stop: they set a flag, so that the step ends and the work is kept."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from afno_repro.errors import Interrupted, LoadingError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


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
    """A flag that SIGTERM, SIGINT and SIGUSR1 set inside the block, instead of ending the process.

    An error after a signal is the signal's own: it may have ended a data-loading worker or another process. Raises
    Interrupted.
    """
    flag = StopFlag()
    before = {number: signal.signal(number, flag.set) for number in STOP_SIGNALS}
    try:
        yield flag
    except (LoadingError, RuntimeError) as error:
        if flag.signal is None:
            raise
        raise Interrupted(flag.signal) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
