"""Named points of a command where a test can kill its process, to see that nothing is lost; otherwise they do nothing.

The environment variable AFNO_FAULT, honoured only under pytest, is one JSON value: {"list": FILE} appends every point
that is passed to a file; {"point": NAME, "passage": N, "rank": R} ends process R (0: the first, or the only one) the
N-th time it passes NAME, as kill -9 does; with "memory": FILE it lacks memory then instead, which is told in the file.
What was asked for is handed down to the processes that a command starts.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

VARIABLES = ("AFNO_FAULT", "PYTEST_CURRENT_TEST", "RANK")
ASKED: dict[str, str] = {}
ARMED: list[Callable[[str], None]] = []


def fault(point: str) -> None:
    """Pass a point."""
    for act in ARMED:
        act(point)


def arm(environment: Mapping[str, str]) -> None:
    """Do what the environment asks for at points from now on."""
    ASKED.update({name: environment[name] for name in VARIABLES if name in environment})
    if "AFNO_FAULT" not in environment or "PYTEST_CURRENT_TEST" not in environment:
        return
    asked = json.loads(environment["AFNO_FAULT"])
    if "list" in asked:
        ARMED[:] = [_listing(asked["list"])]
    elif asked["rank"] == int(environment.get("RANK", 0)):
        act = partial(_lack_memory, asked["memory"]) if "memory" in asked else _die
        ARMED[:] = [_acting(asked["point"], asked["passage"], act)]


def _listing(file: str) -> Callable[[str], None]:
    def act(point: str) -> None:
        with open(file, "a") as lines:
            lines.write(f"{point}\n")

    return act


def _acting(at: str, passage: int, act: Callable[[], None]) -> Callable[[str], None]:
    passed = Counter[str]()

    def acting(point: str) -> None:
        passed[point] += 1
        if point == at and passed[point] == passage:
            act()

    return acting


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _lack_memory(told: str) -> None:
    with open(told, "a") as file:
        file.write("lacked\n")
    raise MemoryError
