"""How long runs take together: as the schedule does them, whatever the order and the length of each."""

from dataclasses import replace

import pytest

from afno_repro.config import RunConfig, digest
from afno_repro.runs.estimate import Estimate, total
from afno_repro.runs.order import elapsed_s
from afno_repro.spec.plan import Run
from tests.machine import machine_at
from tests.runs.test_estimate import PRETRAIN

pytestmark = pytest.mark.fast


def a_run(config: RunConfig) -> Run:
    return Run(digest(config), config, "row", config.kind)


PARENTS = [a_run(replace(PRETRAIN, seed=seed)) for seed in range(3)]
CHILDREN = [a_run(replace(run.config, kind="finetune", init=run.digest)) for run in PARENTS]
TIMED = a_run(replace(PRETRAIN, kind="profile", train=None))


@pytest.mark.parametrize(
    ("seconds", "jobs", "elapsed"),
    [
        ([(PARENTS[0], 69)], 2, 69),  # nothing divides a run
        ([(PARENTS[0], 40), (CHILDREN[0], 20)], 4, 60),  # nor a chain
        ([(PARENTS[0], 50), (PARENTS[1], 50), (PARENTS[2], 50)], 2, 100),
        ([(PARENTS[0], 60), (PARENTS[1], 20), (CHILDREN[0], 10), (CHILDREN[1], 30)], 2, 70),
        ([(CHILDREN[0], 10)], 2, 10),  # its parent is done
        ([(PARENTS[0], 30), (PARENTS[1], 30), (TIMED, 8)], 2, 38),  # a latency has the machine alone
        ([(PARENTS[0], 30), (PARENTS[1], 30), (TIMED, 8)], 1, 68),
        ([], 2, 0),
    ],
)
def test_runs_take_together_what_their_jobs_take_one_after_the_other(tmp_path, seconds, jobs, elapsed):
    machine = machine_at(tmp_path, jobs=jobs)
    runs = [run for run, _ in seconds]
    assert elapsed_s(runs, {run.digest: each for run, each in seconds}, machine) == elapsed


def test_on_gpus_the_longest_runs_first(tmp_path):
    short = [a_run(replace(PRETRAIN, seed=seed, train=replace(PRETRAIN.train, epochs=2))) for seed in range(2)]
    seconds = {run.digest: 20 * run.config.train.epochs for run in [*short, PARENTS[0]]}
    for device, elapsed in (("cpu", 120), ("cuda", 80), ("cuda:1", 80)):
        assert elapsed_s([*short, PARENTS[0]], seconds, machine_at(tmp_path, jobs=2, device=device)) == elapsed


def test_totals_are_the_sums_of_what_is_known_and_the_largest_memory():
    parts = [Estimate(2, 3.0, 3.0, 5.0, 7.0), Estimate(1, 4.0, 2.0, 9.0), Estimate()]
    assert total(parts, wall_s=4.0) == Estimate(3, 7.0, 4.0, 9.0, 7.0)
