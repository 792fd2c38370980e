"""Specs broken at random end in messages, never in a traceback."""

import copy
import random

import pytest
import yaml

from afno_repro.errors import ConfigError
from afno_repro.runs.check import check_runs
from afno_repro.spec.plan import resolve_runs
from afno_repro.spec.reader import read_spec
from tests.specs import SMALL, write_spec

JUNK = [
    None,
    5,
    -1,
    0,
    1.5,
    "x",
    "",
    True,
    [],
    {},
    [1, 2],
    ["a"],
    {"name": "gfn"},
    {"name": 5},
    {"a": 1},
    float("nan"),
    10**30,
    [[1]],
    {"x": {"y": 1}},
]
WORDS = ["zz", "name", "model", "cost", "pretrain", "task", "train", "data", "rows"]


def whole():
    tree = yaml.safe_load(SMALL.replace("1e-3", "0.001").replace("1e-5", "0.00001"))
    tree["scales"]["tiny"] |= {
        "rows": {"afno": {"model": {"mixer": {"num_blocks": 4}}}},
        "columns": {"psnr": {"at": "scale"}},
    }
    return tree


def places(tree, path=()):
    if path:
        yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(rng):
    tree = whole()
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        *path, last = rng.choice(list(places(tree)))
        node = tree
        for key in path:
            node = node[key]
        kind = rng.random()
        if kind < 0.6:
            node[last] = copy.deepcopy(rng.choice(JUNK))
        elif kind < 0.8:
            del node[last]
        elif isinstance(node, dict):
            node[rng.choice(WORDS)] = copy.deepcopy(rng.choice(JUNK))
    return tree


@pytest.mark.parametrize("seed", range(10))
def test_a_mutated_spec_is_sound_or_its_mistakes_are_told(tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(25):
        path = write_spec(tmp_path, yaml.safe_dump(mutated(rng)))
        try:
            spec, problems = read_spec(path, "small.yaml")
            for scale in spec.structure.scales if spec else ():
                plan, found = resolve_runs(spec, scale)
                problems = [*problems, *found, *check_runs(plan, plan.runs)]
        except ConfigError as error:
            problems = error.problems
        assert all(str(problem) for problem in problems)


def test_a_scales_change_of_a_column_is_checked(tmp_path):
    text = SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0], columns: {psnr: {at: moon}}}")
    _, problems = read_spec(write_spec(tmp_path, text), "small.yaml")
    assert [p.key for p in problems] == [("scales", "tiny", "columns", "psnr")]
    assert problems[0].place.startswith("small.yaml:")
