"""As many tests run at once as there are cores: one thread each, and no command's thread spins while it waits."""

import compileall
import os
from pathlib import Path

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


def pytest_configure(config: pytest.Config) -> None:
    """Write the package's bytecode once: hundreds of commands would compile it anew where Python may write none."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(__file__).parents[1] / "afno_repro", quiet=1, workers=0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that cores which share files out are busy to the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
