"""The `afno` command: it picks specs, rows, scales and machines; it configures no numbers and computes none.

Every command is: load, plan, check, execute, write. What a command needs is imported inside it.
"""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from afno_repro.errors import AfnoError, ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Reproduce the tables and figures of 'Adaptive Fourier Neural Operators' from YAML specs.",
)

Spec = Annotated[str, typer.Argument(help="A spec's name, like table2, a path to a YAML file, or all.")]
Scale = Annotated[str, typer.Option(help="smoke, tiny (a CPU, nothing to download), small (one GPU, open data) or paper.")]
SomeScale = Annotated[str | None, typer.Option("--scale", help="One scale; without it, all.")]
Rows = Annotated[list[str] | None, typer.Option("--row", help="Only this row; may be repeated.")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Only this seed; may be repeated.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Independent runs side by side; default: the CPU's cores, 1 on a GPU.")]
Workers = Annotated[int, typer.Option(min=0, help="Data-loading processes of each run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, what is done and the estimated time; compute nothing.")]
Root = Annotated[Path, typer.Option(help="The folder that holds experiments/, results/ and runs/.")]
Data = Annotated[Path | None, typer.Option("--data", envvar="AFNO_DATA", help="The folder that holds data sets, like imagenet/.")]
Runs = Annotated[Path | None, typer.Option("--runs", help="Where runs are kept; default: runs/ below the root.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, as in pretrain.train.lr=1e-4; such tables go to results/custom/.")]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON value on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing while running.")]

HERE = Path()


def _stages(name: str, kinds: tuple[str, ...] | None, help: str) -> None:
    """Add the command that does a spec's stages of some kinds, or all."""

    @app.command(name, help=help)
    def command(
        spec: Spec,
        scale: Scale = "tiny",
        row: Rows = None,
        seed: Seeds = None,
        device: Device = "auto",
        jobs: Jobs = None,
        workers: Workers = 0,
        dry_run: DryRun = False,
        root: Root = HERE,
        data: Data = None,
        runs: Runs = None,
        set: Set = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from afno_repro.suite.plan import Choice

        choice = Choice(rows=_some(row), seeds=_some(seed), kinds=kinds, changes=tuple(set or ()))
        machine = _machine(device, jobs, workers, root, data, runs)
        _reproduce(_places(root, runs), spec, scale, choice, machine, dry_run, json, quiet)


_stages("run", None, "Reproduce one table or figure: run what is missing, then write its results.")
_stages("pretrain", ("pretrain", "baseline"), "Do the pretraining of a spec's rows, with the fillings it is compared to.")


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
    with show_for(quiet) as show:
        tables, code = reproduce(places, prepared, scale, choice, machine, show)
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
    set: Set = None,
    scale: Scale = "tiny",
    row: Rows = None,
    device: Device = "auto",
    root: Root = HERE,
    runs: Runs = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count and time what mixers cost: ad hoc with --mixer, or the cost columns of a spec."""
    from afno_repro.suite import answers
    from afno_repro.suite.plan import Choice

    if (spec is None) == (mixer is None):
        raise ConfigError("profile takes a spec, tables or --mixer, one of them")
    machine = _machine(device, None if spec else 1, 0, root, None, runs)
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
def report(scale: SomeScale = None, root: Root = HERE, runs: Runs = None, json: Json = False, quiet: Quiet = False) -> None:
    """Compute nothing: rewrite every table from the records beside it."""
    from afno_repro.suite import answers
    from afno_repro.suite.plan import EVERYTHING
    from afno_repro.suite.reproduce import rebuild, scales_with_records
    from afno_repro.suite.spec import SCALES

    places = _places(root, runs)
    tables = {each: rebuild(places, each, EVERYTHING) for each in _scales(scale, list(SCALES)) if each in scales_with_records(places)}
    answer = answers.rewritten(places, tables)
    if not quiet or json:
        _answer(answer, json)


@app.command(name="list")
def list_tables(scale: SomeScale = None, root: Root = HERE, runs: Runs = None, json: Json = False) -> None:
    """Show every spec with what is done and what is missing, per scale."""
    from afno_repro.suite import answers
    from afno_repro.suite.spec import SCALES

    _answer(answers.overview(_places(root, runs), _scales(scale, list(SCALES))), json)


@app.command()
def check(spec: Spec, scale: Scale = "tiny", root: Root = HERE, data: Data = None, runs: Runs = None, json: Json = False, quiet: Quiet = False) -> None:
    """Check a spec at every scale, each row's model built without memory, and the data of one scale; does no work."""
    from afno_repro.suite import answers

    machine = _machine("cpu", None, 0, root, data, runs)
    answer = answers.checked(_places(root, runs), spec, scale, machine)
    if not quiet or json:
        _answer(answer, json)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: tensors alone, nothing in it is executed.")],
    format: Annotated[str, typer.Option(help="segformer, hf_segformer, gfnet, afno, swin or resnet.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write, with this package's names.")],
    json: Json = False,
) -> None:
    """Import published weights and report matched, missing, unexpected and resized tensors."""
    from afno_repro.suite import answers

    _answer(answers.converted(file, format, out), json)


@app.command()
def doctor(root: Root = HERE, data: Data = None, runs: Runs = None, json: Json = False) -> None:
    """Look at the environment: packages, device, memory, folders."""
    from afno_repro.suite.doctor import examine

    answer = examine(_places(root, runs), data)
    _answer(answer, json)
    raise typer.Exit(0 if answer.value["healthy"] else 3)


def _places(root: Path, runs: Path | None) -> Any:
    from afno_repro.suite.reproduce import Places

    return Places(root, runs or root / "runs")


def _machine(device: str, jobs: int | None, workers: int, root: Path, data: Path | None, runs: Path | None) -> Any:
    from afno_repro.suite.machine import find_machine

    return find_machine(device, jobs, workers, data or root / "data", runs or root / "runs")


def _scales(asked: str | None, known: list[str]) -> list[str]:
    from afno_repro.options import suggest
    from afno_repro.suite.spec import SCALES

    if asked is not None and asked not in SCALES:
        raise ConfigError(f"there is no scale {asked!r}\n  {suggest(asked, SCALES, 'scales')}")
    return known if asked is None else [asked]


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
