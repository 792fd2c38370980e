"""Several `--worker` commands on one folder: whoever is killed, each run is computed once."""

import os
import random
import time
from collections import Counter
from threading import Timer

from afno_repro.errors import LockedError
from afno_repro.runs import schedule
from afno_repro.runs.schedule import Failure, execute
from afno_repro.runs.show import Show
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.command import start
from tests.forked import FIRST
from tests.machine import machine_at
from tests.runs.test_spread import given, runs, tell  # noqa: F401 (a fixture)
from tests.specs import write_spec
from tests.training.test_loop import FINETUNED

WORKER = ("run", "small", "--worker", "--jobs", "1", "--device", "cpu")
KILLS = 4
WATCH = """
import os, sys
def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith(("record.json", *(f"step-{i:09}" for i in range(1000)))):
        file = os.open(os.environ["COMPUTED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, (os.path.relpath(arguments[1]) + "\\n").encode())
        os.close(file)
sys.addaudithook(watch)
"""


def test_workers_killed_at_random_compute_each_run_and_each_epoch_once(tmp_path):
    """Every checkpoint and every record is put in its place once, by whichever command came that far."""
    write_spec(tmp_path, FINETUNED)
    pick, computed = random.Random(0), tmp_path / "computed"
    environment = {**os.environ, "AFNO_CHECKPOINT_EVERY_S": "0", "COMPUTED": str(computed), FIRST: WATCH}

    def another():
        return start(*WORKER, root=tmp_path, env=environment)

    def done():
        return computed.read_text().split() if computed.exists() else []

    workers, killed = [another() for _ in range(3)], []
    for _ in range(KILLS):
        until, deadline = len(done()) + pick.randint(1, 3), time.monotonic() + 60
        while len(done()) < until and time.monotonic() < deadline:
            time.sleep(0.01)
        victim = workers.pop(pick.randrange(len(workers)))
        victim.kill()
        killed.append(victim)
        workers.append(another())
    said = {process: process.communicate(timeout=300)[1] for process in (*killed, *workers)}
    assert -9 in [process.returncode for process in killed]
    assert [process.returncode for process in workers] == [0] * len(workers), said
    assert not [words for words in said.values() if "Traceback" in words]
    assert any("is held by process " in said[process] for process in workers)
    counts = Counter(done())
    assert set(counts.values()) == {1}
    assert {path for path in counts if path.endswith("record.json")} == {
        str(path.relative_to(tmp_path)) for path in tmp_path.glob("runs/*/record.json")
    }
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 7  # two counts, a filling, two rows of two trainings
    results = (tmp_path / "results/tiny/cells.csv").read_text()
    assert results.count(",measured,") == 7


class Heard(Show):
    def __init__(self, act=lambda said: None):
        self.said, self.act = [], act

    def finished(self, run, outcome, reason, seconds, metrics):
        self.said.append((run.stage, run.row, outcome, reason))
        self.act(self.said)


def test_a_worker_waits_for_what_others_hold_longer_than_other_commands_and_names_each_holder_once(
    tmp_path, monkeypatch
):
    plan = plan_runs(load_spec(write_spec(tmp_path, FINETUNED)), "tiny").needs
    monkeypatch.setattr(schedule, "WAIT_FOR_HELD_S", 0.0)
    monkeypatch.setattr(schedule, "LOOK_AGAIN_S", (0.01, 0.01))
    run, store, heard = (
        plan["afno", "cost", 0] if ("afno", "cost", 0) in plan else plan["afno", "cost", None],
        None,
        Heard(),
    )
    store = Store(tmp_path / "runs")
    held = store.lock(run)
    held.__enter__()
    assert [failure.exit_code for failure in execute([run], machine_at(tmp_path), Show())] == [6]
    timer = Timer(0.5, held.__exit__, (None, None, None))
    timer.start()
    assert execute([run], machine_at(tmp_path, worker=True), heard) == []
    timer.join()
    waited, ended = heard.said
    assert waited[2] == "held"
    assert f"is held by process {os.getpid()} on " in waited[3]
    assert ended[2] == "ok"


def test_what_starts_from_a_held_run_is_not_tried_before_it_even_if_its_holder_was_killed(tmp_path, monkeypatch):
    plan, tried = plan_runs(load_spec(write_spec(tmp_path, FINETUNED)), "tiny").needs, []

    def held_at_first(run, machine, report):
        tried.append(run.stage)
        if tried == ["pretrain"]:
            raise LockedError("held by a command that is killed now")

    monkeypatch.setattr(schedule, "run_one", held_at_first)
    assert execute([plan["afno", stage, 0] for stage in ("pretrain", "finetune")], machine_at(tmp_path), Show()) == []
    assert tried == ["pretrain", "pretrain", "finetune"]


def tell_or_held(run, machine, send):
    """As `tell`, but for a run that another command holds until the file that says so is gone."""
    if run.row == "gfn" and run.stage == "pretrain" and (machine.runs_root.parent / "held").exists():
        send((Failure(run, "held by another", LockedError.exit_code), None))
    else:
        tell(run, machine, send)


def test_side_by_side_what_others_hold_is_tried_again_and_before_its_children(tmp_path, runs, monkeypatch):  # noqa: F811
    monkeypatch.setattr(schedule, "_work", tell_or_held)
    (tmp_path / "held").touch()

    def free(said):
        if [end[2] for end in said].count("ok") == 4:  # all that starts from none of the held ones
            (tmp_path / "held").unlink()

    heard = Heard(free)
    assert execute(runs, machine_at(tmp_path, jobs=2, gpus=("0", "1"), worker=True), heard) == []
    lines = [line[:4] for line in given(tmp_path)]
    assert len(lines) == 2 * len(runs)
    for seed in ("0", "1"):
        held = [i for i, line in enumerate(lines) if line == ["begun", "pretrain", "gfn", seed]]
        assert held[0] >= 8  # after the other row, both trainings and both seeds
        assert lines.index(["ended", "pretrain", "gfn", seed]) < lines.index(["begun", "finetune", "gfn", seed])
    told = [end for end in heard.said if end[2] == "held"]
    assert len(told) == 2  # each once, however often it was tried
