"""What the commands answer: one value for machines, and the same shown to people."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afno_repro.config import Machine
from afno_repro.errors import ConfigError, DataError
from afno_repro.suite.places import Places, load_specs, sound_specs
from afno_repro.suite.plan import Choice, resolve_runs
from afno_repro.suite.render import grid, records_folder
from afno_repro.suite.spec import SCALES
from afno_repro.suite.store import Store, published
from afno_repro.suite.table import Table
from afno_repro.suite.terminal import print_grid, say

if TYPE_CHECKING:
    from afno_repro.suite.reproduce import Prepared


@dataclass(frozen=True)
class Answer:
    """A JSON value and the function that shows it as text."""

    value: Any
    show: Callable[[], None]


def tables(places: Places, built: list[Table], scale: str, choice: Choice) -> Answer:
    """The tables of a run, and where their files are."""
    folder = places.results(scale, bool(choice.changes))
    value = []
    for table in built:
        cells = [
            {"row": row, "column": column, "value": cell.value, "spread": cell.spread, "paper": cell.paper, "verdict": cell.verdict, "state": cell.state}
            for (row, column), cell in table.cells.items()
        ]
        files = [str(folder / f"{table.spec.name}.{end}") for end in ("md", "csv")]
        value.append({"table": table.spec.name, "scale": table.scale, "cells": cells, "files": files})

    def show() -> None:
        for table in built:
            titles = len(table.spec.structure.row_title)
            header, lines = grid(table, [column for column in table.columns if column.printed], brief=True)
            print_grid(f"{table.spec.structure.title} ({table.scale} scale)", header, lines, whole=titles if titles <= 2 else 0)
            say("paper: = stated, ~ assumed, ! differs")
            say(f"{folder / table.spec.name}.md, .csv; all cells in {folder / 'cells.csv'}, claims in {folder / 'claims.csv'}")

    return Answer(value, show)


def plan(places: Places, prepared: "Prepared", scale: str, machine: Machine) -> Answer:
    """The runs of a plan: done, to do or left out for lack of data; what those not done will take, and as the last entry the totals."""
    from afno_repro.suite.estimate import Estimate, estimates, total

    store = Store(machine.runs_root)
    before = [
        record
        for each in prepared.plans
        for (row, stage, seed) in each.needs
        if (record := _readable(records_folder(places.results(scale), each.spec.name), row, stage, seed)) is not None
    ]
    found = estimates(prepared.pending, before, machine)
    value: list[dict[str, Any]] = []
    for each in prepared.plans:
        for (row, stage, seed), run in each.needs.items():
            state = "done" if run.digest not in found else "no data" if run.digest in prepared.absent else "to do"
            if state == "to do" and (store.directory(run) / "checkpoints").is_dir():
                state = "half done"
            entry = {"table": each.spec.name, "row": row, "stage": stage, "seed": seed, "run": run.id, "state": state}
            value.append({**entry, **found.get(run.digest, Estimate()).costs, "missing": prepared.absent.get(run.digest, "")})
    value.append({"table": "total", "row": "", "stage": "", "seed": None, "run": "", "state": "", **total(list(found.values()), machine).costs, "missing": ""})

    def show() -> None:
        for each in prepared.plans:
            lines = [[f"{e['row']} {e['stage']}", str(e["seed"]), e["state"], *_expected(e)] for e in value if e["table"] == each.spec.name]
            lines += [["total", "", "", *_expected(value[-1])]] if each is prepared.plans[-1] else []
            print_grid(f"Plan of {each.spec.name} at {scale} scale", ["row, stage", "seed", "state", "steps", "time", "memory", "disk"], lines)
        for note in [*dict.fromkeys(prepared.absent.values()), *_expectations(value, machine, len(found), len(prepared.absent))]:
            say(note)

    return Answer(value, show)


def _expected(entry: dict[str, Any]) -> list[str]:
    """Steps, time of one device, its memory, and disk, as far as they are known."""
    steps, hours = entry["steps"], entry["device_hours"]
    sizes = ["" if not entry[key] else f"{entry[key]:,.{0 if entry[key] >= 10 else 1 if entry[key] >= 0.1 else 3}f} GiB" for key in ("memory_gib", "disk_gib")]
    return ["" if not steps else f"{steps:,}", "" if hours is None else _hours(hours), *sizes]


def _hours(hours: float) -> str:
    return f"{3600 * hours:.0f} s" if hours < 0.05 else f"{hours:,.{0 if hours >= 100 else 1 if hours >= 1 else 2}f} h"


def _expectations(value: list[dict[str, Any]], machine: Machine, left: int, absent: int) -> list[str]:
    """What the numbers of a plan rest on and mean, in sentences."""
    if not left:
        return ["everything is done"]
    beside = f"{machine.jobs} side by side" if machine.devices == 1 else f"on {machine.devices} devices"
    return [
        f"{left} runs to do, about {_hours(value[-1]['estimate_s'] / 3600)} {beside}" + (f"; {absent} of them lack their data" if absent else ""),
        *(f"time {basis}" for basis in dict.fromkeys(e["basis"] for e in value) if basis),
        *(f"sizes as published, the data being absent: {sizes}" for sizes in dict.fromkeys(e["published_sizes"] for e in value) if sizes),
        f"time and memory are of one device ({machine.device}); a network is slower than its products",
        "memory goes down with --micro-batch and --checkpoint-activations",
        "disk is needed while a run goes on; a seventh of it, the weights, stays",
        "the total counts equal runs once, and of the memory the largest",
    ]


def rewritten(places: Places, built: dict[str, list[Table]]) -> Answer:
    """The files that report wrote, per scale, with the states of their cells."""
    value: list[dict[str, Any]] = []
    for scale, some in built.items():
        for table in some:
            states: dict[str, int] = {}
            for cell in table.cells.values():
                states[cell.state] = states.get(cell.state, 0) + 1
            value.append({"scale": scale, "table": table.spec.name, "file": str(places.results(scale) / f"{table.spec.name}.md"), "cells": states})

    def show() -> None:
        if not value:
            say("there are no records to build tables from; afno run table2 makes some")
        for entry in value:
            say(f"{entry['file']}: " + ", ".join(f"{count} {state}" for state, count in entry["cells"].items()))

    return Answer(value, show)


def overview(places: Places, scales: list[str]) -> Answer:
    """Every spec at every scale: how many of its runs have records, and what is missing; as text also the disk that is used."""
    value: list[dict[str, Any]] = []
    for spec in sound_specs(places, "all"):
        for scale in scales:
            if scale not in spec.structure.scales:
                continue
            plan, problems = resolve_runs(spec, scale)
            if problems:
                raise ConfigError(*problems)
            folder = records_folder(places.results(scale), spec.name)
            done = [need for need, run in plan.needs.items() if (r := _readable(folder, *need)) is not None and r.digest == run.digest]
            missing = sorted({f"{row}/{stage}" for row, stage, seed in plan.needs if (row, stage, seed) not in done})
            entry = {"table": spec.name, "title": spec.structure.title, "scale": scale, "runs": len(plan.needs), "done": len(done)}
            value.append({**entry, "missing": missing})

    def show() -> None:
        lines = [[e["table"], e["scale"], f"{e['done']}/{e['runs']}", some(e["missing"]), e["title"]] for e in value]
        print_grid("Specs", ["table", "scale", "runs", "missing", "title"], lines)
        say("disk: " + ", ".join(f"{folder} {_disk(folder)}" for folder in (places.runs, places.root / "results")))

    return Answer(value, show)


def _disk(folder: Path) -> str:
    """What the files of a folder take; one that goes while we look takes nothing."""
    size = 0
    for inner, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(inner, name)).st_size
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _readable(folder: Path, row: str, stage: str, seed: int) -> Any:
    try:
        return published(folder, row, stage, seed)
    except (OSError, ValueError):
        return None


def checked(places: Places, name: str, scale: str, machine: Machine) -> Answer:
    """Every spec of a name at every scale, and the data of one; raises ConfigError, then DataError."""
    from afno_repro.suite.check import check_runs
    from afno_repro.suite.reproduce import prepare

    loaded = load_specs(places, name)
    problems = [problem for _, found in loaded for problem in found]
    value: list[dict[str, Any]] = []
    for spec, _ in loaded:
        for each in SCALES:
            if spec is None or each not in spec.structure.scales:
                continue
            plan, found = resolve_runs(spec, each)
            found += check_runs(plan, plan.runs)
            problems += [p for p in found if (p.place, p.message) not in {(q.place, q.message) for q in problems}]
            value.append({"table": spec.name, "scale": each, "runs": len(plan.runs)})
    if problems:
        raise ConfigError(*problems)
    for spec, _ in loaded:
        if spec is not None and scale in spec.structure.scales:
            absent = prepare(places, name, scale, Choice(), machine).absent
            if absent:
                raise DataError("\n".join(dict.fromkeys(absent.values())))

    def show() -> None:
        for entry in value:
            say(f"{entry['table']} at {entry['scale']} scale: sound, {entry['runs']} runs")

    return Answer(value, show)
