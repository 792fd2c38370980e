"""How many threads an operation on the CPU takes."""

from threading import Event, Thread

import torch


def use_threads(count: int) -> None:
    """Have operations on the CPU take `count` threads.

    RuntimeError where the system starts no more of them: the library that will start these at its first large operation
    ends the process then, in its own words and with its own exit code.
    """
    torch.set_num_threads(count)
    idle, started = Event(), []
    try:
        for _ in range(count):
            started.append(Thread(target=idle.wait))
            started[-1].start()
    finally:
        idle.set()
        for each in started:
            if each.ident:
                each.join()
