"""What every command does around its own work: find places and machine, reproduce, answer."""

import signal
from pathlib import Path
from typing import Any, NoReturn

import typer


def places(root: Path, runs: Path | None) -> Any:
    """Where specs, results and runs lie."""
    from afno_repro.suite.places import Places

    return Places(root, runs or root / "runs")


def machine(device: str, root: Path, data: Path | None, runs: Path | None) -> Any:
    """The machine at hand, one device of it."""
    from afno_repro.suite.machine import Asked, find_machine

    return find_machine(Asked(device), data or root / "data", runs or root / "runs")


def reproduce(places: Any, spec: str, scale: str, choice: Any, machine: Any, dry_run: bool, json: bool, quiet: bool) -> NoReturn:
    """Do what is left of the asked specs and answer with their tables, or with the plan alone."""
    from afno_repro.suite import answers
    from afno_repro.suite.reproduce import prepare, reproduce
    from afno_repro.suite.terminal import show_for

    prepared = prepare(places, spec, scale, choice, machine, check_all=dry_run)
    if dry_run:
        answer(answers.plan(places, prepared, scale, machine), json)
        raise typer.Exit(0)
    if machine.devices == 1:  # of several processes, one that writes its tables first might wait for the others
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with show_for(quiet or prepared.follows) as show:
        tables, code = reproduce(places, prepared, scale, choice, machine, show)
    if not prepared.follows:
        answer(answers.tables(places, tables, scale, choice), json)
    raise typer.Exit(code)


def some(asked: list[Any] | None) -> tuple[Any, ...] | None:
    """What was asked for; None is everything."""
    return tuple(asked) if asked else None


def answer(answer: Any, as_json: bool) -> None:
    """Print an answer as text, or as one JSON value."""
    if as_json:
        import json

        print(json.dumps(answer.value, indent=1))
    else:
        answer.show()
