"""By what source a table's numbers were made: where it differs and should not, and what was evaluated later."""

from collections.abc import Iterable

from afno_repro.runs.record import Record
from afno_repro.runs.source import own_module
from afno_repro.tables.table import Table

UNKNOWN = "unknown"


def mixed_sources(records: Iterable[Record]) -> dict[str, list[str]]:
    """The sources of records that should have the same and have not, by what they are the source of.

    That is the package, or the package with a mixer of one's own.
    """
    found: dict[str, set[str]] = {}
    for record in records:
        own = own_module(record.config)
        sources = found.setdefault(f"the package with {own}" if own else "the package", set())
        sources |= {made.get("source") or UNKNOWN for made in record.stretches}
    return {of: sorted(sources) for of, sources in found.items() if len(sources) > 1}


def source_notes(table: Table) -> list[str]:
    """Rows whose seeds were made by several sources, runs that other source continued, and metrics that an evaluation
    added, each with its source."""
    averages = [f"averages over seeds of several sources: {text}" for text in _averaged(table)]
    continued = [
        f"continued by other source: {row}/{stage} seed {seed} ({record.source})"
        for (row, stage, seed), record in sorted(table.found.items())
        if len({made.get("source") for made in record.stretches}) > 1
    ]
    return averages + continued + [f"evaluated later: {text}" for text in _evaluated(table)]


def _averaged(table: Table) -> list[str]:
    seeds: dict[tuple[str, str], dict[str, list[str]]] = {}
    for (row, stage, seed), record in sorted(table.found.items()):
        seeds.setdefault((row, stage), {}).setdefault(record.source or UNKNOWN, []).append(str(seed))
    rows: dict[str, list[str]] = {}
    for (row, stage), made in seeds.items():
        if len(made) > 1:
            said = "; ".join(f"seed {', '.join(numbers)} by {source}" for source, numbers in made.items())
            rows.setdefault(said, []).append(f"{row}/{stage}")
    return [f"{', '.join(of)} ({said})" for said, of in rows.items()]


def _evaluated(table: Table) -> list[str]:
    shown = {column.source for column in table.columns}
    rows: dict[str, list[str]] = {}
    for (row, stage, seed), record in table.found.items():
        for key, evaluation in record.later.items():
            if f"{stage}/{key}" in shown:
                source = evaluation.get("source") or UNKNOWN
                rows.setdefault(f"{key} by source {source}", []).append(f"{row}/{stage} seed {seed}")
    return [f"{', '.join(of)} ({said})" for said, of in rows.items()]
