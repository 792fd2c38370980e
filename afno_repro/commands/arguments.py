"""What the commands take: arguments and options that several of them share, with their helps and meanings."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afno_repro.commands.completion import row_names, scale_names, spec_names
from afno_repro.errors import ConfigError

if TYPE_CHECKING:
    from afno_repro.config import Machine
    from afno_repro.runs.machine import Asked
    from afno_repro.spec.places import Places

HERE = Path()
MOST_SEEDS = 10_000

Spec = Annotated[
    str,
    typer.Argument(
        help="A spec's name, like table2, a path to a YAML file, all, or a group like ablation.",
        autocompletion=spec_names,
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        help="smoke, tiny (a CPU, nothing to download), small (one GPU, open data) or paper.",
        autocompletion=scale_names,
    ),
]
SomeScale = Annotated[
    str | None, typer.Option("--scale", help="One scale; without it, all.", autocompletion=scale_names)
]
Rows = Annotated[
    list[str] | None, typer.Option("--row", help="Only this row; may be repeated.", autocompletion=row_names)
]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Only this seed; may be repeated.")]
AllSeeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=1,
        max=MOST_SEEDS,
        help="So many seeds in all, from 0, in place of the scale's; what is done stays.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or one of several GPUs, as in cuda:1.")]
Devices = Annotated[int, typer.Option(min=1, help="Devices (processes) of each node that share every run.")]
Nodes = Annotated[int, typer.Option(min=1, help="Machines, each started by torchrun or srun.")]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Images at a time on a device; gradients add up to the spec's batch.")
]
Recompute = Annotated[
    bool,
    typer.Option("--checkpoint-activations", help="Compute activations again in the backward pass, for less memory."),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Train the backbone through torch.compile, which takes its time to begin with."),
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Independent runs side by side; default: the CPU's cores, or one on each GPU.")
]
PerGpu = Annotated[int, typer.Option(min=1, help="Runs side by side on each GPU, where small ones leave room.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Data-loading processes of each run; default: 0 on a CPU, a GPU's share of the cores."),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show the plan, what is done and the estimated time, memory and disk; compute nothing."
    ),
]
StopAfter = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="MINUTES",
        help="Stop by then as after SIGTERM: keep the work and end with 143; the same command continues.",
    ),
]
Log = Annotated[
    str | None,
    typer.Option(help="tensorboard: write each training's curves into its folder below runs/, once an epoch."),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(min=0, hidden=True, envvar="AFNO_CHECKPOINT_EVERY_S", help="Seconds; what tests kill keeps more."),
]
Worker = Annotated[
    bool,
    typer.Option(
        "--worker",
        help="Wait for what other commands hold, as long as it takes: several of these, on any machines that share "
        "runs/, do a table together.",
    ),
]
Rerun = Annotated[
    bool,
    typer.Option("--rerun", help="Do again what was made with other data or other source than today's, or diverged."),
]
UpdateReference = Annotated[
    bool,
    typer.Option(
        "--update-reference", help="Write results/reference/, which is committed, in place of results/: for developers."
    ),
]
Root = Annotated[Path, typer.Option(help="The folder that holds experiments/, results/ and runs/.")]
Data = Annotated[
    Path | None, typer.Option("--data", envvar="AFNO_DATA", help="The folder that holds data sets, like imagenet/.")
]
Runs = Annotated[Path | None, typer.Option("--runs", help="Where runs are kept; default: runs/ below the root.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE, as in pretrain.train.lr=1e-4; such tables go to results/custom/SCALE/."),
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON value on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing while running.")]


def places(
    root: Path,
    runs: Path | None,
    as_reference: bool = False,
    scale: str | None = None,
    changes: list[str] | None = None,
) -> "Places":
    """Where specs, results and runs lie; raises ConfigError for what cannot be a reference."""
    from afno_repro.spec.places import Places

    if as_reference and (scale == "smoke" or changes):
        raise ConfigError("--update-reference: no reference is made of the smoke scale or with --set; leave one out")
    return Places(root, runs or root / "runs", as_reference)


def machine(asked: "Asked", root: Path, data: Path | None, runs: Path | None, quiet: bool = False) -> "Machine":
    """The machine at hand. A command on the CPU shows itself no GPU, so that nothing opens a context there."""
    from afno_repro.runs.devices import gpu_files, visible
    from afno_repro.runs.machine import find_machine

    if asked.device != "cpu" and not quiet and sys.stderr.isatty() and gpu_files():
        print("looking for GPUs", file=sys.stderr)  # torch, which is asked, takes its time to come
    asked = replace(asked, visible=os.environ.get(visible(os.environ), ""))
    found = find_machine(asked, data or root / "data", runs or root / "runs")
    if found.device == "cpu":
        os.environ[visible(os.environ)] = ""
    return found


def first_seeds(count: int | None) -> tuple[int, ...] | None:
    """Seeds 0 to count - 1; None is the scale's own."""
    return None if count is None else tuple(range(count))


def chosen(asked: list[Any] | None) -> tuple[Any, ...] | None:
    """What was asked for; None is everything."""
    return tuple(asked) if asked else None


def check_worker(worker: bool, rerun: bool) -> None:
    """Raise ConfigError for workers that would do again what another one has just done."""
    if worker and rerun:
        raise ConfigError(
            "--rerun: not with --worker, for each would do again what another one has just done\n"
            "  run it without --worker, on one machine"
        )


def by_user(context: typer.Context, name: str) -> bool:
    """Whether the command line says an argument, at its default or not."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
