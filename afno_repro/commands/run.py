"""`afno run`, and the commands that do stages of some kinds: pretrain, finetune, ablate.

They answer with tables, or with the plan alone.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE

if TYPE_CHECKING:
    from afno_repro.config import Machine
    from afno_repro.spec.places import Places
    from afno_repro.spec.plan import Choice
    from afno_repro.tables.table import Table


def _stages(kinds: tuple[str, ...] | None, help: str, default: Any = ...) -> Callable[..., None]:
    """The command that does a spec's stages of some kinds, or all; `default` is the spec where none is named."""

    def command(
        spec: given.Spec = default,
        scale: given.Scale = "tiny",
        row: given.Rows = None,
        seed: given.Seeds = None,
        seeds: given.AllSeeds = None,
        device: given.Device = "auto",
        devices: given.Devices = 1,
        nodes: given.Nodes = 1,
        jobs: given.Jobs = None,
        per_gpu: given.PerGpu = 1,
        workers: given.Workers = None,
        micro_batch: given.MicroBatch = None,
        checkpoint_activations: given.Recompute = False,
        compile: given.Compile = False,
        dry_run: given.DryRun = False,
        rerun: given.Rerun = False,
        worker: given.Worker = False,
        stop_after: given.StopAfter = None,
        log: given.Log = None,
        checkpoint_every: given.CheckpointEvery = 600.0,
        root: given.Root = HERE,
        data: given.Data = None,
        runs: given.Runs = None,
        set: given.Set = None,
        update_reference: given.UpdateReference = False,
        json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        from afno_repro.runs.launch import placed
        from afno_repro.runs.machine import Asked
        from afno_repro.spec.plan import Choice

        given.check_worker(worker, rerun)
        choice = Choice(
            given.chosen(row),
            given.chosen(seed),
            given.first_seeds(seeds),
            kinds,
            changes=tuple(set or ()),
            rerun=rerun,
        )
        asked = Asked(
            device,
            devices,
            nodes,
            jobs,
            per_gpu,
            workers,
            micro_batch,
            checkpoint_activations,
            compile,
            log,
            worker,
            checkpoint_every,
            placed=placed(os.environ),
        )
        machine = given.machine(asked, root, data, runs, quiet)
        if not dry_run:
            _together(machine, nodes)
            if stop_after is not None:
                _stop_after(60 * stop_after)
        work(given.places(root, runs, update_reference, scale, set), spec, scale, choice, machine, dry_run, json, quiet)

    command.__doc__ = help
    return command


run = _stages(None, "Reproduce a table or figure: run what is missing, write it.")
pretrain = _stages(
    ("pretrain", "baseline"), "Do the pretraining of a spec's rows. With it the fillings that it is compared to."
)
finetune = _stages(("finetune",), "Do the finetuning of a spec's rows. Before it the pretraining that it starts from.")
ablate = _stages(None, "Reproduce the ablations, Table 6 and Figure 4, or one of them.", default="ablation")


def _together(machine: "Machine", nodes: int) -> None:
    """Join the other processes, or start one for each device and end with their exit code."""
    from afno_repro.runs.launch import launch, take_place

    if not take_place(machine, nodes, os.environ) and machine.devices > 1:
        raise typer.Exit(launch(sys.argv[1:], machine.devices, os.environ))


def _stop_after(seconds: float) -> None:
    """Send this process SIGTERM then; by a signal of the system's clock, for a thread might be in a fork's way."""
    signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))  # zero would mean never


def work(
    places: "Places",
    spec: str,
    scale: str,
    choice: "Choice",
    machine: "Machine",
    dry_run: bool,
    json: bool,
    quiet: bool,
) -> NoReturn:
    """Do what is left of the asked specs and answer with their tables, or with the plan alone."""
    from afno_repro.commands.reproduce import follows, prepare, reproduce
    from afno_repro.commands.terminal import show_for

    silent = follows(machine)
    with show_for(quiet or silent) as show:
        prepared = prepare(places, spec, scale, choice, machine, show, check_all=dry_run)
        if dry_run:
            from afno_repro.commands.dry_run import planned
            from afno_repro.tables.numbers import counted

            if prepared.pending:
                show.note(f"estimating {counted(len(prepared.pending), 'run')}")
            answer, code = planned(places, prepared, scale, machine), 0
        else:
            if machine.devices == 1:  # of several processes, one that writes its tables first might wait for the others
                signal.signal(signal.SIGINT, signal.default_int_handler)
            tables, code = reproduce(places, prepared, scale, choice, machine, show)
            answer = shown(places, tables, scale, choice)
    if not silent:
        tell(answer, json)
    raise typer.Exit(code)


def shown(places: "Places", built: "list[Table]", scale: str, choice: "Choice") -> Answer:
    """The tables of a run, and where their files are."""
    from afno_repro.commands.terminal import print_grid, say
    from afno_repro.tables.figures import drawn
    from afno_repro.tables.grid import grid, ranks

    folder = places.results(scale, bool(choice.changes))
    value = []
    for table in built:
        cells = [
            {
                "row": row,
                "column": column,
                "value": cell.value,
                "spread": cell.spread,
                "paper": cell.paper,
                "verdict": cell.verdict,
                "state": cell.state,
            }
            for (row, column), cell in table.cells.items()
        ]
        files = [str(folder / f"{table.spec.name}.{end}") for end in ("md", "csv", "tex")]
        figures = [str(path) for path in drawn(folder, table)]
        value.append({"table": table.spec.name, "scale": table.scale, "cells": cells, "files": [*files, *figures]})

    def show() -> None:
        for table in built:
            titles = len(table.spec.structure.row_title)
            columns = [column for column in table.columns if column.printed]
            print_grid(
                f"{table.spec.structure.title} ({table.at})",
                *grid(table, columns, brief=True),
                whole=titles if titles <= 2 else 0,
                ranks=ranks(table, columns),
            )
            if any(cell.verdict for cell in table.cells.values()):
                say("paper: = stated, ~ assumed, ! differs")
            say(
                f"{folder / table.spec.name}.md, .csv, .tex; all cells in {folder / 'cells.csv'}, claims in "
                f"{folder / 'claims.csv'}",
                *(f"{path.with_suffix('')}.png, .svg, .pdf" for path in drawn(folder, table)),
            )

    return Answer(value, show)
