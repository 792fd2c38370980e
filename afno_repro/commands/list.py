"""`afno list`: every spec with what is done and what is missing, per scale."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, some, tell
from afno_repro.commands.arguments import HERE
from afno_repro.errors import ConfigError

if TYPE_CHECKING:
    from afno_repro.spec.places import Places


def list_tables(
    scale: given.SomeScale = None, root: given.Root = HERE, runs: given.Runs = None, json: given.Json = False
) -> None:
    """Show every spec with what is done and what is missing, per scale."""
    from afno_repro.spec.places import asked_scales

    tell(overview(given.places(root, runs), asked_scales(scale)), json)


def overview(places: "Places", scales: list[str]) -> Answer:
    """Every spec at every scale: how many runs have records, what is missing; as text also the disk in use."""
    from afno_repro.commands.terminal import print_grid, say
    from afno_repro.runs.source import source_hash, source_of
    from afno_repro.runs.store import readable, records_folder
    from afno_repro.spec.places import sound_specs
    from afno_repro.spec.plan import resolve_runs

    value: list[dict[str, Any]] = []
    source = source_hash()
    for spec in sound_specs(places, "all"):
        for scale in scales:
            if scale not in spec.structure.scales:
                continue
            plan, problems = resolve_runs(spec, scale)
            if problems:
                raise ConfigError(*problems)
            folder = records_folder(places.results(scale), spec.name)
            records = {need: readable(folder, *need) for need in plan.needs}
            done = {need: r for need, r in records.items() if r is not None and r.digest == plan.needs[need].digest}
            unused = max((record.provenance.get("left_out", 0) for record in done.values()), default=0)
            other = sum(record.provenance.get("source") != source_of(record.config, source) for record in done.values())
            missing = sorted({f"{row}/{stage}" for row, stage, seed in plan.needs if (row, stage, seed) not in done})
            entry = {
                "table": spec.name,
                "title": spec.structure.title,
                "scale": scale,
                "runs": len(plan.needs),
                "done": len(done),
            }
            value.append({**entry, "missing": missing, "other_source": other, "left_out": unused})

    def show() -> None:
        lines = [[e["table"], e["scale"], f"{e['done']}/{e['runs']}", some(e["missing"]), e["title"]] for e in value]
        print_grid("Specs", ["table", "scale", "runs", "missing", "title"], lines)
        if others := [f"{e['table']} {e['scale']} {e['other_source']}" for e in value if e["other_source"]]:
            say(f"made by other source than today's, or before records knew it: {', '.join(others)}")
        if unused := [f"{e['table']} {e['scale']} {e['left_out']}" for e in value if e["left_out"]]:
            say(f"files of the data that were not used (their records name the first): {', '.join(unused)}")
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
