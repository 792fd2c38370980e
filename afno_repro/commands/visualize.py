"""`afno visualize`: the pictures of a spec, or of other images or another network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE

if TYPE_CHECKING:
    from afno_repro.config import Machine
    from afno_repro.spec.places import Places


def visualize(
    spec: given.Spec,
    images: Annotated[
        Path | None, typer.Option(help="Show these images instead of the spec's: a file or a folder.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Show this network: a run's folder or a weights file; needs one --row."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where pictures of other images or networks go; default: results/custom/SCALE/.")
    ] = None,
    scale: given.Scale = "tiny",
    row: given.Rows = None,
    device: given.Device = "auto",
    update_reference: given.UpdateReference = False,
    root: given.Root = HERE,
    data: given.Data = None,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Make the pictures of a spec, and the runs that they show. Or show other images or another network."""
    from afno_repro.commands.run import work
    from afno_repro.runs.machine import Asked
    from afno_repro.spec.plan import Choice

    machine, places = (
        given.machine(Asked(device), root, data, runs, quiet),
        given.places(root, runs, update_reference, scale),
    )
    if images is None and source is None:
        work(places, spec, scale, Choice(rows=given.chosen(row), kinds=("visualize",)), machine, False, json, quiet)
    asked = (scale, given.chosen(row), images, source, out or places.results(scale, changed=True))
    tell(exhibited(places, spec, asked, machine, quiet), json)


def exhibited(places: "Places", name: str, asked: Any, machine: "Machine", quiet: bool) -> Answer:
    """Pictures of other images or of another network, and where they are."""
    from afno_repro.commands.terminal import say, show_for
    from afno_repro.spec.places import sound_specs

    with show_for(quiet) as show:
        from afno_repro.commands.own_images import Exhibit, exhibit

        specs = sound_specs(places, name)
        files = [str(file) for spec in specs for file in exhibit(spec, Exhibit(*asked), machine, show.note)]

    def text() -> None:
        for file in files:
            say(file)

    return Answer({"files": files}, text)
