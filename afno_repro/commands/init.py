"""`afno init`: the specs that ship, copied to where they can be edited."""

from pathlib import Path
from typing import Annotated

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where experiments/ is to lie.")] = HERE,
    json: given.Json = False,
) -> None:
    """Copy the specs that ship, to be edited. They go to DIR/experiments; what lies there is kept."""
    tell(copied(folder / "experiments"), json)


def copied(folder: Path) -> Answer:
    """The specs written to a folder, and those that were there already."""
    from afno_repro.commands.terminal import say
    from afno_repro.files import write_atomic
    from afno_repro.spec.places import SHIPPED

    value: dict[str, list[str]] = {"written": [], "kept": []}
    for path in sorted((SHIPPED / "experiments").glob("[!.]*.yaml")):
        copy = folder / path.name
        there = copy.exists() or copy.is_symlink()
        if not there:
            write_atomic(copy, path.read_bytes())
        value["kept" if there else "written"].append(str(copy))

    def show() -> None:
        for what, files in value.items():
            say(f"{what} in {folder}: {', '.join(Path(file).name for file in files) or 'none'}")

    return Answer(value, show)
