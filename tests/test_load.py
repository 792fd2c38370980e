"""Many at once: several commands on one table, and a table of ten thousand records."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from afno_repro.runs.provenance import provenance
from afno_repro.runs.record import Record
from afno_repro.runs.store import committed_name, records_folder
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.command import afno, start
from tests.machine import machine_at
from tests.specs import SMALL, write_spec

WATCH = """
import os, sys
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and "config.json" in arguments[0] \
and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        file = os.open(os.environ["COMPUTED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, (os.path.basename(os.path.dirname(arguments[0])) + "\\n").encode())
        os.close(file)
sys.addaudithook(watch)
"""
RUN = ("run", "small", "--scale", "smoke", "--jobs", "1", "--device", "cpu")
SAME = ("cells.csv", "claims.csv", "small.csv")


def many(rows: int, seeds: int, scale: str) -> str:
    """The small spec with this many trained rows and seeds, and no other runs."""
    mixer = "{name: afno, num_blocks: 2, sparsity_threshold: %s, keep: 1.0, bias: identity, init_std: 0.02}"
    lines = [
        f"  - key: r{i}\n    title: [ViT, '{i}']\n    cost: null\n    model: {{mixer: {mixer % f'0.{i:03}'}}}\n"
        for i in range(rows)
    ]
    text = SMALL[: SMALL.index("rows:\n")] + "rows:\n" + "".join(lines) + SMALL[SMALL.index("scales:\n") :]
    text = text.replace("better: afno, worse: gfn", "better: r0, worse: r1").replace(
        "train_crops: 24", "train_crops: 8"
    )
    text = text.replace(f"{scale}: {{seeds: [0]", f"{scale}: {{seeds: {list(range(seeds))}")
    assert str(list(range(seeds))) in text
    return text


def commands_share_a_table(tmp_path, processes: int, rows: int, seeds: int) -> Path:
    """So many commands, started together, compute each run once, keep each record; returns their tables' folder."""
    site, shared = tmp_path / "site", tmp_path / "shared"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WATCH)
    write_spec(shared, many(rows, seeds, "smoke"))
    environment = {**os.environ, "PYTHONPATH": str(site), "COMPUTED": str(tmp_path / "computed")}
    started = [start(*RUN, root=shared, env=environment) for _ in range(processes)]
    told = [process.communicate(timeout=600) for process in started]
    for process, (_, err) in zip(started, told, strict=True):
        assert "Traceback" not in err, err
        assert process.returncode == 0 or (process.returncode == 6 and "is held by" in err), (process.returncode, err)
    assert 0 in [process.returncode for process in started]
    computed = (tmp_path / "computed").read_text().split()
    assert len(computed) == len(set(computed)) == rows * seeds
    assert sorted(path.name for path in (shared / "runs").glob("pretrain-*")) == sorted(computed)
    records = records_folder(shared / "runs/smoke", "small")
    names = {committed_name(f"r{row}", "pretrain", seed) for row in range(rows) for seed in range(seeds)}
    assert {path.name for path in records.glob("*.json")} == names
    assert {json.loads((records / name).read_text())["run_id"] for name in names} == set(computed)
    cells = (shared / "runs/smoke/cells.csv").read_text()
    assert cells.count(",measured,") == rows  # the last table written knows every record
    assert cells.count(f",{seeds},,,,measured,") == rows
    return shared / "runs/smoke"


def test_two_commands_share_a_table_and_compute_each_run_once(tmp_path):
    commands_share_a_table(tmp_path, processes=2, rows=2, seeds=3)


@pytest.mark.slow
def test_eight_commands_share_a_table_of_forty_runs_and_compute_each_once(tmp_path):
    shared = commands_share_a_table(tmp_path, processes=8, rows=10, seeds=4)
    write_spec(tmp_path / "alone", many(10, 4, "smoke"))
    afno(*RUN, root=tmp_path / "alone")
    for name in SAME:
        assert (shared / name).read_text() == (tmp_path / "alone/runs/smoke" / name).read_text(), name


MEASURED = """
import json, resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "afno_repro", "report"]).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def report_of(tmp_path, rows: int, seeds: int) -> tuple[float, float]:
    """Seconds of processor time and MiB of memory that a report on so many records takes."""
    plan = plan_runs(load_spec(write_spec(tmp_path, many(rows, seeds, "tiny"))), "tiny")
    folder = records_folder(tmp_path / "results/tiny", "small")
    folder.mkdir(parents=True)
    made_with = provenance("a machine", machine_at(Path()), 2.0, None)
    for (row, stage, seed), run in plan.needs.items():
        record = Record(run.id, run.digest, run.config, "ok", {"psnr": 20 + seed / 10}, {}, made_with)
        (folder / committed_name(row, stage, seed)).write_text(record.to_json())
    began = time.monotonic()
    # Started by a small process: the kernel counts what a process held before it became another.
    done = subprocess.run([sys.executable, "-c", MEASURED], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    code, seconds, memory_mib = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    text = (tmp_path / "results/tiny/report.md").read_text()
    assert f"{rows * seeds} runs, " in text
    assert (tmp_path / "results/tiny/cells.csv").read_text().count(",measured,") == rows
    print(
        f"{rows * seeds} records: {seconds:.1f} s of a processor, {time.monotonic() - began:.1f} s in all, "
        f"{memory_mib:.0f} MiB"
    )
    return seconds, memory_mib


def test_three_hundred_records_are_reported(tmp_path):
    report_of(tmp_path, 20, 15)


@pytest.mark.slow
def test_ten_thousand_records_are_reported_within_seconds_and_500_mb(tmp_path):
    seconds, memory_mib = report_of(tmp_path, 100, 100)
    assert seconds < 20  # about 4 on one core; a loaded machine takes longer
    assert memory_mib < 500
