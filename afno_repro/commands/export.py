"""`afno export`: a run's network as an ONNX file."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE


def export(
    run: Annotated[
        str, typer.Argument(help="A finished training: its folder, its id, or the digest that the id ends with.")
    ],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    root: given.Root = HERE,
    runs: given.Runs = None,
    json: given.Json = False,
) -> None:
    """Write a run's network as ONNX. Before that onnxruntime has to compute the same with it."""
    from afno_repro.commands.terminal import show_for

    with show_for(quiet=False):
        answer = exported(run, out, given.places(root, runs).runs)
    tell(answer, json)


def exported(named: str, out: Path, runs: Path) -> Answer:
    """The file that was written, and what a user of it needs to know."""
    from afno_repro.commands.terminal import say
    from afno_repro.runs.export import export_run
    from afno_repro.runs.store import Store

    done = export_run(named, out, Store(runs))

    def show() -> None:
        say(f"{done.out}: {done.bytes / 2**20:.2f} MiB, ONNX opset {done.opset}, of {done.run}")
        for role, found in (("input", done.inputs), ("output", done.outputs)):
            for name, shape in found.items():
                say(f"{role} {name}: {' x '.join(map(str, shape))}")
        say(f"an image is {done.metadata['input']}")
        say(f"largest difference in onnxruntime: {done.difference:.1g} of the largest value")

    return Answer(asdict(done), show)
