"""`afno report`: every table written anew from the records beside it."""

from typing import TYPE_CHECKING, Any

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE

if TYPE_CHECKING:
    from afno_repro.spec.places import Places
    from afno_repro.tables.table import Table


def report(
    scale: given.SomeScale = None,
    update_reference: given.UpdateReference = False,
    root: given.Root = HERE,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Rewrite every table from its records; compute nothing. The reference's stands beside it."""
    from afno_repro.spec.places import asked_scales, scales_with_records
    from afno_repro.spec.plan import EVERYTHING
    from afno_repro.tables.rebuild import rebuild

    places = given.places(root, runs, update_reference, scale)
    found = scales_with_records(places)
    if not update_reference:
        found += scales_with_records(places.reference, places.spec_names())
    tables = {each: rebuild(places, each, EVERYTHING) for each in asked_scales(scale) if each in found}
    answer = rewritten(places, tables)
    if not quiet or json:
        tell(answer, json)


def rewritten(places: "Places", built: "dict[str, list[Table]]") -> Answer:
    """The files that report wrote, per scale, with the states of their cells."""
    from afno_repro.commands.terminal import say

    value: list[dict[str, Any]] = []
    for scale, some in built.items():
        for table in some:
            states: dict[str, int] = {}
            for cell in table.cells.values():
                states[cell.state] = states.get(cell.state, 0) + 1
            value.append(
                {
                    "scale": scale,
                    "table": table.spec.name,
                    "file": str(places.results(scale) / f"{table.spec.name}.md"),
                    "cells": states,
                }
            )

    def show() -> None:
        if not value:
            say("there are no records of yours to build tables from; afno run table2 makes some")
        for entry in value:
            say(f"{entry['file']}: " + ", ".join(f"{count} {state}" for state, count in entry["cells"].items()))
        for scale in built:
            say(f"{places.results(scale) / 'report.html'}: all of it")

    return Answer(value, show)
