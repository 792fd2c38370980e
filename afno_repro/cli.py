"""The `afno` command: it picks specs, rows, scales and machines; it configures no numbers and computes none.

Every command is: load, plan, check, execute, write. What a command needs is imported inside it.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from afno_repro import __version__
from afno_repro.commands.check import check
from afno_repro.commands.convert import convert
from afno_repro.commands.data import data_sets
from afno_repro.commands.doctor import doctor
from afno_repro.commands.evaluate import evaluate
from afno_repro.commands.export import export
from afno_repro.commands.init import init
from afno_repro.commands.list import list_tables
from afno_repro.commands.profile import profile
from afno_repro.commands.report import report
from afno_repro.commands.run import ablate, finetune, pretrain, run
from afno_repro.commands.submit import UNKNOWN, submit
from afno_repro.commands.visualize import visualize
from afno_repro.errors import AfnoError, DataError, refusal
from afno_repro.faults import arm

HOME = str(Path(__file__).parents[1])  # the folder that this package lies in
PACKAGES = {
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
}  # of modules that are named otherwise
# How often a thread of libgomp looks for work before it sleeps. It takes as many itself where its process has more
# threads than there are cores, but knows nothing of other processes: its 300,000 otherwise starve them.
SPINS = "1000"
UNHEARD = 128 + signal.SIGPIPE  # the exit code where the reader of standard output or error left
EXTRAS = {  # of this package that bring modules which only some commands need
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    "pyarrow": "parquet",
    "submitit": "cluster",
    "tensorboard": "tensorboard",
}


app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {  # in the order of use, which is that of the help and of the README
    "list": list_tables,
    "run": run,
    "report": report,
    "profile": profile,
    "check": check,
    "data": data_sets,
    "doctor": doctor,
    "pretrain": pretrain,
    "finetune": finetune,
    "ablate": ablate,
    "visualize": visualize,
    "evaluate": evaluate,
    "submit": submit,
    "init": init,
    "convert": convert,
    "export": export,
}
for name, command in COMMANDS.items():
    app.command(name, context_settings=UNKNOWN if command is submit else None)(command)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Reproduce the tables and figures of 'Adaptive Fourier Neural Operators' from YAML specs."""
    if version:
        print(f"afno {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run a command; a mistake that the user can mend is told without a traceback, with its own exit code."""
    _open_standard_streams()
    gc.set_threshold(
        50_000, 50, 50
    )  # most of what a short command makes lives to its end: looking for garbage costs it a sixth of its time
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a question mark
    arm(os.environ)
    _leave_this_folder()
    os.environ["PYTHONSAFEPATH"] = (
        "1"  # no process that this one starts imports from the folder that it happens to stand in
    )
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported, here and in what this starts
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to write before the end
    signal.signal(
        signal.SIGUSR1, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM)
    )  # where no training keeps its work first
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where it can still be told that it went wrong
    except AfnoError as error:
        _tell(error)
    except BrokenPipeError:
        _say_no_more()
        sys.exit(UNHEARD)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # of which click makes a 1
            sys.exit(UNHEARD)
        raise
    except (OSError, RuntimeError, MemoryError) as error:
        from afno_repro.runs.launch import left_alone

        told = left_alone(error) or refusal(error)
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


def _leave_this_folder() -> None:
    """Import nothing from the current folder for an empty or relative entry of PYTHONPATH, often there by accident.

    But this package, where it lies there: its processes are to find it.
    """
    try:
        here = os.getcwd()
    except OSError:  # it is gone
        return
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    by_accident = here not in entries and any(os.path.abspath(entry) == here for entry in entries)
    if here in sys.path and by_accident and here != HOME:
        sys.path.remove(here)


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, so that no other file gets its number and what is said there."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")  # noqa: SIM115


def _say_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: AfnoError) -> NoReturn:
    """Print a mistake, as JSON too where that was asked for, and end with its exit code."""
    from afno_repro.escape import visible

    try:
        if "--json" in sys.argv:
            import json

            print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        sys.stdout.flush()
    except OSError:  # a full disk, which may be what is to be told
        _say_no_more()
    with suppress(BrokenPipeError):
        print(visible(str(error)), file=sys.stderr)
    sys.exit(error.exit_code)
