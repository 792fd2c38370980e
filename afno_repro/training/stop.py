"""Signals that ask a training to stop: they set a flag, so that the step ends and the work is kept."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from afno_repro.errors import Interrupted, LoadingError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGXCPU)
ECHO_S = 0.2  # timeout and others signal a process and then its whole group: the same asking, twice
REPEATED = (signal.SIGHUP, signal.SIGXCPU)  # a terminal that closes and a used-up CPU time say so more than once


class StopFlag:
    """The first signal that asked this process to stop, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def set(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second one that somebody sends gets the default handling, at once."""
        self.signal = number
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        time.sleep(ECHO_S)
        for each in set(STOP_SIGNALS) - set(REPEATED):
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that STOP_SIGNALS set inside the block, instead of ending the process; nohup's ignoring stays.

    An error after a signal is the signal's own: it may have ended a data-loading worker or another process. Raises
    Interrupted.
    """
    flag = StopFlag()
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, flag.set) for number in heeded}
    try:
        yield flag
    except (LoadingError, RuntimeError) as error:
        if flag.signal is None:
            raise
        raise Interrupted(flag.signal) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
