"""`afno convert`: published weights in this package's names."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, some, tell


def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: tensors alone, nothing in it is executed.")],
    format: Annotated[str, typer.Option(help="segformer, hf_segformer, gfnet, afno, swin or resnet.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write, with this package's names.")],
    json: given.Json = False,
) -> None:
    """Import published weights and report matched, missing, unexpected and resized tensors."""
    tell(converted(file, format, out), json)


def converted(file: Path, format_name: str, out: Path) -> Answer:
    """A checkpoint written in our names, and which of its tensors found a place."""
    from afno_repro.commands.terminal import say
    from afno_repro.weights.convert import convert, write_weights

    found = convert(file, format_name)
    write_weights(found, out)
    lists = {key: getattr(found, key) for key in ("matched", "missing", "unexpected", "resized")}
    value = {
        "file": str(file),
        "format": format_name,
        "out": str(out),
        "sha256": found.sha256,
        "model": asdict(found.model),
        "image_size": found.learned_at,
    }

    def show() -> None:
        for key, names in lists.items():
            say(f"{key}: {len(names)}" + (f" ({some(names)})" if names and key != "matched" else ""))
        say(
            f"model: {found.model.backbone.name} {dict(found.model.backbone.options)}, made for {found.learned_at} "
            "pixels"
        )
        say(f"sha256 of {file}: {found.sha256}\n{out}")

    return Answer({**value, **lists}, show)
