"""The commands beside the tables: profile, visualize, data, convert, export, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from afno_repro import arguments as given
from afno_repro import session
from afno_repro.arguments import HERE, app
from afno_repro.errors import ConfigError


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
    from afno_repro.suite import tool_answers
    from afno_repro.suite.plan import Choice

    if (spec is None) == (mixer is None):
        raise ConfigError("profile takes a spec, tables or --mixer, one of them")
    machine = session.machine(device, root, None, runs)
    if spec is not None:
        choice = Choice(rows=session.some(row), kinds=("profile",), latency=latency and spec != "tables", changes=tuple(set or ()))
        session.reproduce(session.places(root, runs), "all" if spec == "tables" else spec, scale, choice, machine, False, json, quiet)
    for option, value, allowed in (("precision", precision, ("float32", "bf16")), ("mode", mode, ("forward", "train"))):
        if value not in allowed:
            raise ConfigError(f"--{option} {value}: must be {' or '.join(allowed)}")
    changes = tuple(f"model.{change}" if not change.startswith("model.") else change for change in set or ())
    asked = (backbone, tuple(mixer or ()), tuple(res or ["1024"]), batch, precision, mode, latency, changes)
    session.answer(tool_answers.profiled(session.places(root, runs), asked, machine.device, out), json)


@app.command()
def visualize(
    spec: given.Spec,
    images: Annotated[Path | None, typer.Option(help="Show these images instead of the spec's: a file or a folder.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Show this network: a run's folder or a weights file; needs one --row.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where pictures of other images or networks go; default: results/custom/.")] = None,
    scale: given.Scale = "tiny",
    row: given.Rows = None,
    device: given.Device = "auto",
    root: given.Root = HERE,
    data: given.Data = None,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Make the pictures of a spec, and the runs that they show; or show other images or another network."""
    from afno_repro.suite import tool_answers
    from afno_repro.suite.plan import Choice

    machine, places = session.machine(device, root, data, runs), session.places(root, runs)
    if images is None and source is None:
        session.reproduce(places, spec, scale, Choice(rows=session.some(row), kinds=("visualize",)), machine, False, json, quiet)
    asked = (scale, session.some(row), images, source, out or places.results(scale, changed=True))
    session.answer(tool_answers.exhibited(places, spec, asked, machine, quiet), json)


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
    session.answer(answer, json)
    raise typer.Exit(3 if surveys.problem_count(answer.value) else 0)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: tensors alone, nothing in it is executed.")],
    format: Annotated[str, typer.Option(help="segformer, hf_segformer, gfnet, afno, swin or resnet.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write, with this package's names.")],
    json: given.Json = False,
) -> None:
    """Import published weights and report matched, missing, unexpected and resized tensors."""
    from afno_repro.suite import tool_answers

    session.answer(tool_answers.converted(file, format, out), json)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A finished training: its folder, its id, or the digest that the id ends with.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    root: given.Root = HERE,
    runs: given.Runs = None,
    json: given.Json = False,
) -> None:
    """Write a run's network as ONNX, once onnxruntime has computed the same with it."""
    from afno_repro.suite.export import exported

    session.answer(exported(run, out, session.places(root, runs).runs), json)


@app.command()
def doctor(root: given.Root = HERE, data: given.Data = None, runs: given.Runs = None, json: given.Json = False) -> None:
    """Look at the environment: packages, device, memory, folders."""
    from afno_repro.suite.doctor import examine

    answer = examine(session.places(root, runs), data)
    session.answer(answer, json)
    raise typer.Exit(0 if answer.value["healthy"] else 3)
