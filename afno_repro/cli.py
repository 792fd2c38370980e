"""The `afno` command: it picks specs, rows, scales and machines; it configures no numbers and computes none.

Every command is: load, plan, check, execute, write. What a command needs is imported inside it.
"""

import gc
import os
import signal
import sys
from io import TextIOWrapper
from typing import Any, NoReturn

import typer

from afno_repro import arguments as given
from afno_repro import session
from afno_repro import tools as tools  # its commands
from afno_repro.arguments import HERE, app
from afno_repro.errors import AfnoError, DataError
from afno_repro.faults import arm

PACKAGES = {"yaml": "pyyaml", "skimage": "scikit-image", "sklearn": "scikit-learn", "PIL": "pillow"}  # of modules that are named otherwise
EXTRAS = dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export")  # of this package that bring modules which only some commands need


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
        compile: given.Compile = False,
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

        choice = Choice(rows=session.some(row), seeds=session.some(seed), kinds=kinds, changes=tuple(set or ()))
        asked = Asked(device, devices, nodes, jobs, workers, micro_batch, checkpoint_activations, compile)
        machine = find_machine(asked, data or root / "data", runs or root / "runs")
        if not dry_run:
            _together(machine, nodes)
        session.reproduce(session.places(root, runs), spec, scale, choice, machine, dry_run, json, quiet)


def _together(machine: Any, nodes: int) -> None:
    """Join the other processes, or start one for each device and end with their exit code."""
    from afno_repro.suite.launch import launch, take_place

    if not take_place(machine, nodes, os.environ) and machine.devices > 1:
        raise typer.Exit(launch(sys.argv[1:], machine.devices, os.environ))


_stages("run", None, "Reproduce one table or figure: run what is missing, then write its results.")
_stages("pretrain", ("pretrain", "baseline"), "Do the pretraining of a spec's rows, with the fillings it is compared to.")
_stages("finetune", ("finetune",), "Do the finetuning of a spec's rows, and the pretraining that it starts from.")
_stages("ablate", None, "Reproduce the ablations, Table 6 and Figure 4, or one of them.", default="ablation")


@app.command()
def report(scale: given.SomeScale = None, root: given.Root = HERE, runs: given.Runs = None, json: given.Json = False, quiet: given.Quiet = False) -> None:
    """Compute nothing: rewrite every table from the records beside it."""
    from afno_repro.suite import answers
    from afno_repro.suite.places import asked_scales, scales_with_records
    from afno_repro.suite.plan import EVERYTHING
    from afno_repro.suite.reproduce import rebuild

    places = session.places(root, runs)
    tables = {each: rebuild(places, each, EVERYTHING) for each in asked_scales(scale) if each in scales_with_records(places)}
    answer = answers.rewritten(places, tables)
    if not quiet or json:
        session.answer(answer, json)


@app.command(name="list")
def list_tables(scale: given.SomeScale = None, root: given.Root = HERE, runs: given.Runs = None, json: given.Json = False) -> None:
    """Show every spec with what is done and what is missing, per scale."""
    from afno_repro.suite import answers
    from afno_repro.suite.places import asked_scales

    session.answer(answers.overview(session.places(root, runs), asked_scales(scale)), json)


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

    machine = session.machine("cpu", root, data, runs)
    answer = answers.checked(session.places(root, runs), spec, scale, machine)
    if not quiet or json:
        session.answer(answer, json)


def main() -> None:
    """Run a command; a mistake that the user can mend is told without a traceback, with its own exit code."""
    gc.set_threshold(50_000, 50, 50)  # most of what a short command makes lives to its end: looking for garbage costs it a sixth of its time
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a question mark
    arm(os.environ)
    os.environ["PYTHONSAFEPATH"] = "1"  # no process that this one starts imports from the folder that it happens to stand in
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to write before the end
    signal.signal(signal.SIGUSR1, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))  # where no training keeps its work first
    try:
        app()
    except AfnoError as error:
        _tell(error)
    except RuntimeError as error:
        from afno_repro.suite.launch import left_alone

        told = left_alone(error)
        if told is None:
            raise
        _tell(told)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "afno_repro"):
            raise
        package = PACKAGES.get(module, module)
        source = f"'afno_repro[{EXTRAS[module]}]'" if module in EXTRAS else package
        _tell(DataError(f"the package {package} is not installed\n  pip install {source}"))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of standard output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _tell(error: AfnoError) -> NoReturn:
    """Print a mistake, as JSON too where that was asked for, and end with its exit code."""
    from afno_repro.suite.escape import visible

    if "--json" in sys.argv:
        import json

        print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
    print(visible(str(error)), file=sys.stderr)
    sys.exit(error.exit_code)
