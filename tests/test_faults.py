"""A process killed at any named point: the same command goes on and ends as if nothing had happened, bit for bit."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.command import afno, start
from tests.commands.test_own_images import FIGURES, STAGE
from tests.specs import SMALL, write_spec
from tests.training.test_loop import COLUMN, FINETUNE

SPEC = SMALL.replace("columns:\n", FINETUNE + STAGE + COLUMN, 1).replace("scales:\n", FIGURES + "scales:\n", 1)
SPEC = SPEC[: SPEC.index("  - key: fill_mean")] + SPEC[SPEC.index("scales:\n") - len(FIGURES) :]
ONE = ("run", "small", "--row", "afno", "--device", "cpu", "--jobs", "1")
TWO = ("run", "small", "--row", "afno", "--device", "cpu", "--devices", "2")
TIMES = re.compile(r'"sha256": "\w+"|"seconds": [\d.]+|[\d.e+-]+ device-hours|\d+ s of computing')
KILLED = {ONE: -9, TWO: 1}
IN_CI = {ONE: 15, TWO: 3}


def left(root: Path) -> dict[str, bytes]:
    """Every file that a command leaves but locks and what it remembers of files' inodes, less what it says of time."""
    files = [path for path in root.rglob("*") if path.is_file() and path.parent.name not in ("contents", "locks")]
    found = {str(path.relative_to(root)): path for path in files}
    return {
        name: path.read_bytes() if path.suffix in (".safetensors", ".npz", ".png", ".pdf") else timeless(path)
        for name, path in found.items()
    }


def timeless(path: Path) -> bytes:
    text = TIMES.sub("", path.read_text())
    if path.stem == "report":
        text = text[: text.index("Device-hours by table")]
    return text.encode()


def armed(**asked) -> dict[str, str]:
    return {**os.environ, "AFNO_FAULT": json.dumps(asked), "AFNO_CHECKPOINT_EVERY_S": "0"}


class Whole:
    """What an uninterrupted command leaves, and the points that it passes: (rank, point, passage)."""

    def __init__(self, root: Path, command: tuple[str, ...]):
        self.command, self.root, points = command, root / "whole", root / "points"
        write_spec(self.root, SPEC)
        afno(*command, root=self.root, env=armed(list=str(points)))
        self.left = left(self.root)
        names = points.read_text().splitlines()
        self.passages = [
            (0, name, passage)
            for name in dict.fromkeys(names)
            for passage in sorted({1, names.count(name) // (1 + (command == TWO)) or 1})
        ]
        if command == TWO:
            self.passages += [(1, name, passage) for _, name, passage in self.passages if name.startswith("training")]

    def sample(self, count: int) -> list[tuple[int, str, int]]:
        return [self.passages[int((i + 0.5) * len(self.passages) / count)] for i in range(count)]

    def killed(self, root: Path, rank: int, point: str, passage: int) -> None:
        """Kill the command at a point, do it again, and compare."""
        write_spec(root, SPEC)
        process = start(*self.command, root=root, env=armed(point=point, passage=passage, rank=rank))
        _, err = process.communicate(timeout=120)
        assert process.returncode == KILLED[self.command], f"{point}: {err}"
        assert "Traceback" not in err
        afno(*self.command, root=root)
        after = left(root)
        assert after.keys() == self.left.keys(), point
        assert [name for name in after if after[name] != self.left[name]] == [], point


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return Whole(tmp_path_factory.mktemp("one"), ONE)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return Whole(tmp_path_factory.mktemp("two"), TWO)


def test_every_write_and_every_phase_has_its_points(one):
    names = {name for _, name, _ in one.passages}
    files = {name.rpartition("/")[2] for name in one.left} - {"small.yaml", ".lock"} | {"state.pt", "manifest.json"}
    assert {f"{file}: {when}" for file in files for when in ("opened", "written", "flushed", "renamed")} <= names
    phases = {name for name in names if name.partition(":")[0] in ("training", "checkpoint", "run", "results")}
    source = "".join(path.read_text() for path in Path(__file__).parents[1].glob("afno_repro/**/*.py"))
    assert phases == set(re.findall(r'\bfault\("([^"]+)"\)', source))


@pytest.mark.parametrize("number", range(IN_CI[ONE]))
def test_a_process_killed_at_a_point_loses_nothing(tmp_path, one, number):
    one.killed(tmp_path, *one.sample(IN_CI[ONE])[number])


@pytest.mark.parametrize("number", range(IN_CI[TWO]))
def test_one_of_two_processes_killed_at_a_point_loses_nothing(tmp_path, two, number):
    two.killed(tmp_path, *two.sample(IN_CI[TWO])[number])


@pytest.mark.slow
@pytest.mark.parametrize("whole", ["one", "two"])
def test_a_process_killed_at_every_point_loses_nothing(tmp_path, whole, request):
    found = request.getfixturevalue(whole)
    for i, passage in enumerate(found.passages):
        found.killed(tmp_path / str(i), *passage)


def test_outside_of_tests_no_point_is_armed(tmp_path):
    environment = {**armed(point="run: locked", passage=1, rank=0)}
    del environment["PYTEST_CURRENT_TEST"]
    write_spec(tmp_path)
    afno("run", "small", "--scale", "smoke", "--row", "fill_mean", "--device", "cpu", root=tmp_path, env=environment)
