"""`afno profile`: what mixers cost, ad hoc, or the cost columns of a spec."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE
from afno_repro.commands.completion import spec_names
from afno_repro.errors import ConfigError

if TYPE_CHECKING:
    from afno_repro.spec.places import Places


AD_HOC = ("res", "backbone", "batch", "precision", "mode", "out")  # options that a spec has no use for
OF_SPECS = ("scale", "row", "update_reference")  # and --mixer


def profile(
    context: typer.Context,
    spec: Annotated[
        str | None,
        typer.Argument(
            help="A spec whose costs are counted and timed, or tables: the counts of all specs.",
            autocompletion=spec_names,
        ),
    ] = None,
    mixer: Annotated[
        list[str] | None,
        typer.Option(help="A mixer to profile without a spec, or all: Table 4's five; may be repeated."),
    ] = None,
    res: Annotated[list[str] | None, typer.Option(help="HEIGHT or HEIGHTxWIDTH in pixels; may be repeated.")] = None,
    backbone: Annotated[
        str, typer.Option(help="A backbone of the tables, like segformer-b0 or vit-b.")
    ] = "segformer-b3",
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    precision: Annotated[str, typer.Option(help="float32, tf32 or bf16.")] = "float32",
    mode: Annotated[str, typer.Option(help="forward or train (forward and backward).")] = "forward",
    latency: Annotated[bool, typer.Option(help="Measure latency and memory too, not only count.")] = True,
    out: Annotated[Path | None, typer.Option(help="Save CSV, Markdown and a plot in this folder.")] = None,
    set: given.Set = None,
    scale: given.Scale = "tiny",
    row: given.Rows = None,
    device: given.Device = "auto",
    update_reference: given.UpdateReference = False,
    root: given.Root = HERE,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Count and time what mixers cost. Ad hoc with --mixer, or the cost columns of a spec."""
    from afno_repro.commands.run import work
    from afno_repro.commands.terminal import show_for
    from afno_repro.runs.devices import told
    from afno_repro.runs.machine import Asked
    from afno_repro.spec.plan import Choice

    if (spec is None) == (mixer is None):
        raise ConfigError("profile takes a spec, tables or --mixer, one of them")
    options = {name: f"--{name.replace('_', '-')}" for name in (AD_HOC if mixer is None else OF_SPECS)}
    if useless := [option for name, option in options.items() if given.by_user(context, name)]:
        of = "--mixer and not to a spec" if mixer is None else "a spec and not to --mixer"
        raise ConfigError(f"{', '.join(useless)}: belongs to {of}")
    machine = given.machine(Asked(device, jobs=1), root, None, runs, quiet)
    if spec is not None:
        choice = Choice(
            rows=given.chosen(row), kinds=("profile",), latency=latency and spec != "tables", changes=tuple(set or ())
        )
        places = given.places(root, runs, update_reference, scale, set)
        work(places, "all" if spec == "tables" else spec, scale, choice, machine, False, json, quiet)
    allowances = (("precision", precision, ("float32", "tf32", "bf16")), ("mode", mode, ("forward", "train")))
    for option, value, allowed in allowances:
        if value not in allowed:
            raise ConfigError(f"--{option} {value}: must be {', '.join(allowed[:-1])} or {allowed[-1]}")
    changes = tuple(f"model.{change}" if not change.startswith("model.") else change for change in set or ())
    asked = (backbone, tuple(mixer or ()), tuple(res or ["1024"]), batch, precision, mode, latency, changes)
    with show_for(quiet) as show:
        show.note(f"{', '.join(mixer or ())} at {', '.join(asked[2])} pixels {told(machine)}")
        answer = profiled(given.places(root, runs), asked, machine.device, out)
    tell(answer, json)


def profiled(places: "Places", asked: Any, device: str, out: Path | None) -> Answer:
    """Mixers profiled without a spec; saved only where a folder is named."""
    from afno_repro.commands.mixer_costs import Asked, profile_mixers, save_profiles
    from afno_repro.commands.terminal import print_grid, say

    profiles = profile_mixers(places, Asked(*asked), device)
    files = save_profiles(profiles, out) if out else []

    def show() -> None:
        lines = []
        for p in profiles:
            latency = p.state.replace("_", " ") if p.state != "measured" else _seconds(p.latency_s, p.latency_spread_s)
            memory = "" if p.peak_memory_mib is None else f"{p.peak_memory_mib:.0f}"
            counts = [
                f"{p.params / 1e6:.2f}",
                f"{p.mixer_params / 1e6:.2f}",
                *(f"{g:.1f}" for g in (p.gflops, p.mixer_gflops, p.gflops_full)),
            ]
            lines.append(
                [
                    p.mixer,
                    str(p.resolution),
                    *counts,
                    latency,
                    "" if p.images_per_s is None else f"{p.images_per_s:.2f}",
                    memory,
                ]
            )
        header = [
            "Mixer",
            "Pixels",
            "Params (M)",
            "Mixer (M)",
            "GFLOPs",
            "Mixer GFLOPs",
            "Full GFLOPs",
            "Latency (s)",
            "Images/s",
            "Peak (MiB)",
        ]
        print_grid(
            f"{profiles[0].backbone} with the head {profiles[0].head} on {profiles[0].device}, {profiles[0].mode}, "
            f"batch {profiles[0].batch}",
            header,
            lines,
            whole=1,
        )
        say(
            "GFLOPs are multiply-accumulates in 1e9, counted as in Table 4; full GFLOPs are all floating-point "
            "operations"
        )
        for file in files:
            say(file)

    return Answer([asdict(p) for p in profiles], show)


def _seconds(value: float | None, spread: float | None) -> str:
    return "" if value is None else f"{value:.3g}" + ("" if spread is None else f" ± {spread:.1g}")
