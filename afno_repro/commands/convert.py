"""`afno convert`: published weights in this package's names."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, some, tell
from afno_repro.errors import ConfigError, Problem


def convert(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: tensors alone, nothing in it is executed.")],
    format: Annotated[str, typer.Option(help="segformer, gfnet, afno, swin or resnet, by whichever names.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write, with this package's names.")],
    residuals: Annotated[
        int | None, typer.Option(min=1, max=2, help="afno: residuals in a block, where the file does not tell.")
    ] = None,
    num_heads: Annotated[
        str | None, typer.Option(help="segformer: attention heads of the four stages, as 1,2,5,8, unless MiT-B0 to B5.")
    ] = None,
    ema: Annotated[
        bool | None, typer.Option("--ema/--no-ema", help="Which weights, where a file holds averaged and raw ones.")
    ] = None,
    json: given.Json = False,
) -> None:
    """Import published weights. Report matched, missing, unexpected and resized tensors."""
    from afno_repro.commands.terminal import show_for

    with show_for(quiet=False):
        answer = converted(file, format, out, residuals, num_heads, ema)
    tell(answer, json)


def converted(
    file: Path, format_name: str, out: Path, residuals: int | None, num_heads: str | None, ema: bool | None
) -> Answer:
    """A checkpoint written in our names, and which of its tensors found a place."""
    from afno_repro.commands.terminal import say
    from afno_repro.weights.convert import convert, write_weights
    from afno_repro.weights.formats import Told

    found = convert(file, format_name, Told(residuals, _four(num_heads)), ema)
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
        for kind, part in asdict(found.model).items():
            if part is not None:
                say(f"{kind}: {part['name']} {part['options']}")
        say(f"made for {found.learned_at} pixels\nsha256 of {file}: {found.sha256}\n{out}")

    return Answer({**value, **lists}, show)


def _four(text: str | None) -> tuple[int, ...] | None:
    """Four numbers of heads, as in 1,2,5,8."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(Problem(f"--num-heads {text}: must be four numbers above 0", (), "as --num-heads 1,2,5,8"))
    return tuple(map(int, parts))
