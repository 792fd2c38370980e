"""The `afno` command: it picks specs, rows, scales and machines; it configures no numbers and computes none.

Every command is: load, plan, check, execute, write. What a command needs is imported inside it.
"""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from afno_repro import arguments as given
from afno_repro.errors import AfnoError, ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Reproduce the tables and figures of 'Adaptive Fourier Neural Operators' from YAML specs.",
)

HERE = Path()


def _stages(name: str, kinds: tuple[str, ...] | None, help: str, default: Any = ...) -> None:
    """Add the command that does a spec's stages of some kinds, or all; `default` is the spec where none is named."""

    @app.command(name, help=help)
    def command(
        spec: given.Spec = default,
        scale: given.Scale = "tiny",
        row: given.Rows = None,
        seed: given.Seeds = None,
        device: given.Device = "auto",
        devices: given.Devices = 1,
        nodes: given.Nodes = 1,
        jobs: given.Jobs = None,
        workers: given.Workers = 0,
        micro_batch: given.MicroBatch = None,
        checkpoint_activations: given.Recompute = False,
        dry_run: given.DryRun = False,
        root: given.Root = HERE,
        data: given.Data = None,
        runs: given.Runs = None,
        set: given.Set = None,
        json: given.Json = False,
        quiet: given.Quiet = False,
    ) -> None:
        from afno_repro.suite.machine import Asked, find_machine
        from afno_repro.suite.plan import Choice

        choice = Choice(rows=_some(row), seeds=_some(seed), kinds=kinds, changes=tuple(set or ()))
        asked = Asked(device, devices, nodes, jobs, workers, micro_batch, checkpoint_activations)
        machine = find_machine(asked, data or root / "data", runs or root / "runs")
        if not dry_run:
            _together(machine, nodes)
        _reproduce(_places(root, runs), spec, scale, choice, machine, dry_run, json, quiet)


def _together(machine: Any, nodes: int) -> None:
    """Join the other processes, or start one for each device and end with their exit code."""
    from afno_repro.suite.launch import launch, take_place

    if not take_place(machine, nodes, os.environ) and machine.devices > 1:
        raise typer.Exit(launch(sys.argv[1:], machine.devices, os.environ))


_stages("run", None, "Reproduce one table or figure: run what is missing, then write its results.")
_stages("pretrain", ("pretrain", "baseline"), "Do the pretraining of a spec's rows, with the fillings it is compared to.")
_stages("finetune", ("finetune",), "Do the finetuning of a spec's rows, and the pretraining that it starts from.")
_stages("ablate", None, "Reproduce the ablations, Table 6 and Figure 4, or one of them.", default="ablation")


def _some(asked: list[Any] | None) -> tuple[Any, ...] | None:
    return tuple(asked) if asked else None


def _reproduce(places: Any, spec: str, scale: str, choice: Any, machine: Any, dry_run: bool, json: bool, quiet: bool) -> NoReturn:
    from afno_repro.suite import answers
    from afno_repro.suite.reproduce import prepare, reproduce
    from afno_repro.suite.terminal import show_for

    prepared = prepare(places, spec, scale, choice, machine, check_all=dry_run)
    if dry_run:
        _answer(answers.plan(places, prepared, scale, machine), json)
        raise typer.Exit(0)
    with show_for(quiet or prepared.follows) as show:
        tables, code = reproduce(places, prepared, scale, choice, machine, show)
    if not prepared.follows:
        _answer(answers.tables(places, tables, scale, choice), json)
    raise typer.Exit(code)


@app.command()
def profile(
    spec: Annotated[str | None, typer.Argument(help="A spec whose costs are counted and timed, or tables: the counts of all specs.")] = None,
    mixer: Annotated[list[str] | None, typer.Option(help="A mixer to profile without a spec, or all: Table 4's five; may be repeated.")] = None,
    res: Annotated[list[str] | None, typer.Option(help="HEIGHT or HEIGHTxWIDTH in pixels; may be repeated.")] = None,
    backbone: Annotated[str, typer.Option(help="A backbone of the tables, like segformer-b0 or vit-b.")] = "segformer-b3",
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    precision: Annotated[str, typer.Option(help="float32 or bf16.")] = "float32",
    mode: Annotated[str, typer.Option(help="forward or train (forward and backward).")] = "forward",
    latency: Annotated[bool, typer.Option(help="Measure latency and memory too, not only count.")] = True,
    out: Annotated[Path | None, typer.Option(help="Save CSV, Markdown and a plot in this folder.")] = None,
    set: given.Set = None,
    scale: given.Scale = "tiny",
    row: given.Rows = None,
    device: given.Device = "auto",
    root: given.Root = HERE,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Count and time what mixers cost: ad hoc with --mixer, or the cost columns of a spec."""
    from afno_repro.suite import answers
    from afno_repro.suite.plan import Choice

    if (spec is None) == (mixer is None):
        raise ConfigError("profile takes a spec, tables or --mixer, one of them")
    machine = _machine(device, root, None, runs)
    if spec is not None:
        choice = Choice(rows=_some(row), kinds=("profile",), latency=latency and spec != "tables", changes=tuple(set or ()))
        _reproduce(_places(root, runs), "all" if spec == "tables" else spec, scale, choice, machine, False, json, quiet)
    for option, value, allowed in (("precision", precision, ("float32", "bf16")), ("mode", mode, ("forward", "train"))):
        if value not in allowed:
            raise ConfigError(f"--{option} {value}: must be {' or '.join(allowed)}")
    changes = tuple(f"model.{change}" if not change.startswith("model.") else change for change in set or ())
    asked = (backbone, tuple(mixer or ()), tuple(res or ["1024"]), batch, precision, mode, latency, changes)
    _answer(answers.profiled(_places(root, runs), asked, machine.device, out), json)


@app.command()
def report(scale: given.SomeScale = None, root: given.Root = HERE, runs: given.Runs = None, json: given.Json = False, quiet: given.Quiet = False) -> None:
    """Compute nothing: rewrite every table from the records beside it."""
    from afno_repro.suite import answers
    from afno_repro.suite.plan import EVERYTHING
    from afno_repro.suite.reproduce import asked_scales, rebuild, scales_with_records

    places = _places(root, runs)
    tables = {each: rebuild(places, each, EVERYTHING) for each in asked_scales(scale) if each in scales_with_records(places)}
    answer = answers.rewritten(places, tables)
    if not quiet or json:
        _answer(answer, json)


@app.command(name="list")
def list_tables(scale: given.SomeScale = None, root: given.Root = HERE, runs: given.Runs = None, json: given.Json = False) -> None:
    """Show every spec with what is done and what is missing, per scale."""
    from afno_repro.suite import answers
    from afno_repro.suite.reproduce import asked_scales

    _answer(answers.overview(_places(root, runs), asked_scales(scale)), json)


@app.command()
def check(
    spec: given.Spec,
    scale: given.Scale = "tiny",
    root: given.Root = HERE,
    data: given.Data = None,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Check a spec at every scale, each row's model built without memory, and the data of one scale; does no work."""
    from afno_repro.suite import answers

    machine = _machine("cpu", root, data, runs)
    answer = answers.checked(_places(root, runs), spec, scale, machine)
    if not quiet or json:
        _answer(answer, json)


@app.command(name="data")
def data_sets(
    root: given.Root = HERE,
    data: given.Data = None,
    check: Annotated[bool, typer.Option("--check", help="Open every file and name those that cannot be used.")] = False,
    json: given.Json = False,
) -> None:
    """List every data set: found or not, where it was looked for, and how to get it."""
    from afno_repro.suite import surveys

    answer = surveys.data_sets(data or root / "data", check)
    _answer(answer, json)
    raise typer.Exit(3 if surveys.problem_count(answer.value) else 0)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: tensors alone, nothing in it is executed.")],
    format: Annotated[str, typer.Option(help="segformer, hf_segformer, gfnet, afno, swin or resnet.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write, with this package's names.")],
    json: given.Json = False,
) -> None:
    """Import published weights and report matched, missing, unexpected and resized tensors."""
    from afno_repro.suite import answers

    _answer(answers.converted(file, format, out), json)


@app.command()
def doctor(root: given.Root = HERE, data: given.Data = None, runs: given.Runs = None, json: given.Json = False) -> None:
    """Look at the environment: packages, device, memory, folders."""
    from afno_repro.suite.doctor import examine

    answer = examine(_places(root, runs), data)
    _answer(answer, json)
    raise typer.Exit(0 if answer.value["healthy"] else 3)


def _places(root: Path, runs: Path | None) -> Any:
    from afno_repro.suite.reproduce import Places

    return Places(root, runs or root / "runs")


def _machine(device: str, root: Path, data: Path | None, runs: Path | None) -> Any:
    from afno_repro.suite.machine import Asked, find_machine

    return find_machine(Asked(device), data or root / "data", runs or root / "runs")


def _answer(answer: Any, as_json: bool) -> None:
    """Print an answer as text, or as one JSON value."""
    if as_json:
        import json

        print(json.dumps(answer.value, indent=1))
    else:
        answer.show()


def main() -> None:
    """Run a command; a mistake that the user can mend is told without a traceback, with its own exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a question mark
    try:
        app()
    except AfnoError as error:
        if "--json" in sys.argv:
            import json

            print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of standard output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
