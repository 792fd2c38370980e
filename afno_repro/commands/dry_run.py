"""What `--dry-run` answers: the plan, what of it is done, and what the rest will take."""

from typing import Any

from afno_repro.commands.answer import Answer
from afno_repro.commands.reproduce import Prepared
from afno_repro.commands.terminal import print_grid, say
from afno_repro.config import Machine
from afno_repro.runs.bound import unread
from afno_repro.runs.estimate import Estimate, estimates, total
from afno_repro.runs.order import elapsed_s
from afno_repro.runs.store import Store, readable, records_folder
from afno_repro.spec.places import Places
from afno_repro.tables.numbers import counted


def planned(places: Places, prepared: Prepared, scale: str, machine: Machine) -> Answer:
    """The runs of a plan: done, to do or left out for lack of data.

    Those not done have their estimates; the last entry holds the totals.
    """
    store = Store(machine.runs_root)
    before = [
        record
        for each in prepared.plans
        for home in (places.reference, places)
        for need in each.needs
        if (record := readable(records_folder(home.results(scale), each.spec.name), *need)) is not None
    ]
    found = estimates(prepared.pending, before, machine)
    value: list[dict[str, Any]] = []
    for each in prepared.plans:
        for (row, stage, seed), run in each.needs.items():
            state = "done" if run.digest not in found else "no data" if run.digest in prepared.absent else "to do"
            if state == "to do" and store.half_done(run):
                state = "half done"
            entry = {"table": each.spec.name, "row": row, "stage": stage, "seed": seed, "run": run.id, "state": state}
            value.append(
                {**entry, **found.get(run.digest, Estimate()).costs, "missing": prepared.absent.get(run.digest, "")}
            )
    wall_s = elapsed_s(prepared.pending, {digest: each.wall_s or 0.0 for digest, each in found.items()}, machine)
    value.append(
        {
            "table": "total",
            "row": "",
            "stage": "",
            "seed": None,
            "run": "",
            "state": "",
            **total(list(found.values()), wall_s).costs,
            "missing": "",
        }
    )

    files, size = unread(prepared.pending, machine)

    def show() -> None:
        for each in prepared.plans:
            lines = [
                [f"{e['row']} {e['stage']}", str(e["seed"]), e["state"], *_expected(e)]
                for e in value
                if e["table"] == each.spec.name
            ]
            lines += [["total", "", "", *_expected(value[-1])]] if each is prepared.plans[-1] else []
            print_grid(
                f"Plan of {each.spec.name} at {scale} scale",
                ["row, stage", "seed", "state", "steps", "time", "memory", "disk"],
                lines,
            )
        if files:
            say(f"to know the data by their content {files:,} files, {size / 2**30:.1f} GiB, are read once")
        for note in [
            *dict.fromkeys(prepared.absent.values()),
            *_expectations(value, machine, len(found), len(prepared.absent)),
        ]:
            say(note)

    return Answer(value, show)


def _expected(entry: dict[str, Any]) -> list[str]:
    """Steps, time of one device, its memory, and disk, as far as they are known."""
    steps, hours = entry["steps"], entry["device_hours"]
    sizes = [
        "" if not entry[key] else f"{entry[key]:,.{0 if entry[key] >= 10 else 1 if entry[key] >= 0.1 else 3}f} GiB"
        for key in ("memory_gib", "disk_gib")
    ]
    return ["" if not steps else f"{steps:,}", "" if hours is None else _hours(hours), *sizes]


def _hours(hours: float) -> str:
    return f"{3600 * hours:.0f} s" if hours < 0.05 else f"{hours:,.{0 if hours >= 100 else 1 if hours >= 1 else 2}f} h"


def _expectations(value: list[dict[str, Any]], machine: Machine, left: int, absent: int) -> list[str]:
    """What the numbers of a plan rest on and mean, in sentences."""
    if not left:
        return ["everything is done"]
    jobs = min(machine.jobs, left)
    beside = f" on {machine.devices} devices" if machine.devices > 1 else f", {jobs} side by side" if jobs > 1 else ""
    return [
        f"{counted(left, 'run')} to do, about {_hours(value[-1]['estimate_s'] / 3600)}{beside}"
        + (f"; {absent} of them lack their data" if absent else ""),
        *(f"time {basis}" for basis in dict.fromkeys(e["basis"] for e in value) if basis),
        *(
            f"sizes as published, the data being absent: {sizes}"
            for sizes in dict.fromkeys(e["published_sizes"] for e in value)
            if sizes
        ),
        f"time and memory are of one device ({machine.device}); a network is slower than its products",
        "memory goes down with --micro-batch and --checkpoint-activations",
        "disk is needed while a run goes on; a seventh of it, the weights, stays",
        "the total counts equal runs once, and of the memory the largest",
    ]
