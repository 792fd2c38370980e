"""Half as many tests again run at once as there are cores: one thread each, and no command's spins while it waits."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LONGEST = (
    "test_doors",
    "test_docs",
    "test_errors",
    "test_together",
    "test_crash",
    "test_commands",
    "test_resume",
    "test_types",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A test waits for a third of its time: for locks, for processes that start, for those that end."""
    cores = len(os.sched_getaffinity(0))
    return cores + cores // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that cores which share files out are busy to the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
