"""`afno submit`: workers as tasks of a cluster."""

import re
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, some, tell
from afno_repro.commands.completion import spec_names
from afno_repro.commands.run import run

OPTION = re.compile(r"([a-z][a-z-]*)(?:=(.+))?")  # of sbatch
UNKNOWN = {"ignore_unknown_options": True}  # they are those of afno run


def submit(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE",
            help="A spec's name or path, and any other option of afno run.",
            autocompletion=spec_names,
        ),
    ],
    tasks: Annotated[int, typer.Option(min=1, help="Workers to start.")],
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of sbatch, like time=1440 (in minutes), partition=gpu or gpus-per-node=1, or one without "
            "a value; may be repeated.",
        ),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Start them on this machine's CPU, to try it.")] = False,
    json: given.Json = False,
) -> None:
    """Start workers, afno run --worker, as tasks of SLURM. They do a table together; needs submitit."""
    from afno_repro.errors import ConfigError

    if local and slurm:
        raise ConfigError("--local: not with --slurm, for SLURM chooses the machines")
    tell(submitted(arguments, tasks, None if local else asked_of_slurm(slurm or [])), json)


def asked_of_slurm(options: Sequence[str]) -> dict[str, str | bool]:
    """sbatch's options by their names. Raises ConfigError for what is none, or without a time."""
    from afno_repro.errors import ConfigError

    matches = [OPTION.fullmatch(option) for option in options]
    wrong = [
        f"--slurm {option!r}: must be KEY=VALUE or KEY, named as sbatch names it, like partition=gpu"
        for option, match in zip(options, matches, strict=True)
        if match is None
    ]
    if wrong:
        raise ConfigError(*wrong)
    found: dict[str, str | bool] = {match[1]: match[2] or True for match in matches if match}
    if not re.fullmatch("[1-9][0-9]{0,6}", str(found.get("time"))):
        raise ConfigError(
            "--slurm time=MINUTES: must say how many minutes a task may take, like --slurm time=1440\n"
            "  a worker whose time is up keeps its work and is queued again; --local needs none of this"
        )
    return found


def submitted(arguments: Sequence[str], tasks: int, slurm: dict[str, str | bool] | None) -> Answer:
    """The tasks that were started, once what they are to do is known to be no mistake."""
    from afno_repro.commands.terminal import say
    from afno_repro.runs.cluster import submit_tasks
    from afno_repro.spec.places import asked_scales, sound_specs

    asked = [*arguments, "--worker"]
    options = _of_run(asked)
    places = given.places(options["root"], options["runs"])
    given.check_worker(options["worker"], options["rerun"])
    asked_scales(options["scale"])
    sound_specs(places, options["spec"])
    logs = places.runs / "jobs"
    command = [sys.executable, "-m", "afno_repro", "run", *asked]
    ids = submit_tasks(command, tasks, logs, f"afno-{options['spec']}", slurm)

    def show() -> None:
        say(f"{len(ids)} tasks of afno run {shlex.join(asked)}: {some(ids)}", f"what they say goes to {logs}")

    return Answer({"command": command, "tasks": ids, "logs": str(logs)}, show)


def _of_run(arguments: Sequence[str]) -> dict[str, Any]:
    """What `afno run` understands; its own message ends the command where that is nothing."""
    app = typer.Typer(add_completion=False)
    app.command("afno run")(run)
    return typer.main.get_command(app).make_context("afno run", list(arguments)).params
