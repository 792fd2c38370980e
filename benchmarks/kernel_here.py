"""The Triton kernel beside the transforms' form: `python -m benchmarks.kernel_here [--device auto] [--images 32]`.

The block MLP between the FFTs, forward and with its gradients, of a shape for each of the kernel's tiles, which the
table names; ratios above 1 are the kernel's. `predicted` is what an H100 would take as assumed in benchmarks/rates.py,
bytes or products, whichever is longer; it is no measurement. Without a GPU nothing is measured. The table is written
after every shape; ends with 1 where a shape failed or its output is wrong.
"""

import argparse
import sys
from functools import partial
from itertools import product
from math import inf
from typing import Any

import torch
from torch import Tensor

from afno_repro.mixers.forms.kernel import fused_block_mlp
from afno_repro.mixers.forms.tiles import WIDEST, cut_of
from afno_repro.mixers.forms.transforms import LeanMLP, block_mlp
from afno_repro.mixers.spectral import Shrinkage
from afno_repro.precision import set_precision
from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from benchmarks.kernel_sizes import PRECISIONS, Shape, named
from benchmarks.rates import ASSUMED
from benchmarks.side_by_side import NO_TIME, paced, timed, write

SHAPES = [
    Shape(8, 96, 1624),
    Shape(8, 12, 1624),
    Shape(16, 24, 1624),
    Shape(8, 64, 544),
    Shape(1, 750, 1624),
    Shape(1, 208, 33024),
]
THRESHOLD, LOOSE = 0.01, 2e-2
HEADER = ["blocks x channels", "modes", "images", "products", "tiles", "GPU, predicted ms (H100)", "GPU, measured ms"]
HEADER += ["GPU, measured ratio", "GPU, measured ms, both", "GPU, measured ratio, both", "GPU, measured error"]


def predicted_ms(shape: Shape, images: int, precision: str) -> float:
    """A forward pass without gradients: z read, s written, and h both where blocks are wide."""
    elements = images * shape.blocks * shape.width * shape.modes
    moved = 8 * elements * (2 if shape.width <= WIDEST else 4)
    operations = 16 * elements * shape.width
    rate = ASSUMED["tf32" if precision == "float32" else "bf16"]
    return 1e3 * max(moved / (1e12 * ASSUMED["copy"]), operations / (1e12 * rate))


def inputs(shape: Shape, images: int, device: torch.device) -> list[Tensor]:
    """z and the weights."""
    torch.manual_seed(0)
    blocks, width, modes = shape
    z = torch.randn(images, blocks, width, modes, dtype=torch.complex64, device=device)
    w1, w2 = (torch.randn(blocks, width, width, 2, device=device) / width**0.5 for _ in range(2))
    b1, b2 = (torch.randn(blocks, width, 1, 2, device=device) for _ in range(2))
    return [z, w1, b1, w2, b2]


def measured(shape: Shape, images: int, rounds: int, precision: Any, device: torch.device) -> list[str]:
    """Times, ratios and the error of the output. Raises ArithmeticError where that is above LOOSE."""
    values, shrink = inputs(shape, images, device), Shrinkage(THRESHOLD)

    def plain(z: Tensor, *weights: Tensor) -> Tensor:
        spectrum = z.flatten(1, 2)[..., None]  # B C N 1
        return LeanMLP.apply(spectrum, *weights, shrink, torch.is_grad_enabled()).view(z.shape)  # type: ignore[no-untyped-call, no-any-return]

    def fused(*given: Tensor) -> Tensor:
        return fused_block_mlp(*given, THRESHOLD, precision)

    def both(call: Any) -> None:
        given = [value.detach().requires_grad_() for value in values]
        s = call(*given)
        torch.autograd.grad(s, given, torch.ones_like(s))

    with torch.no_grad():
        few = [values[0][:1], *values[1:]]
        exact = [value.to(torch.complex128 if value.is_complex() else torch.float64) for value in few]
        expected = block_mlp(exact[0].flatten(1, 2)[..., None], *exact[1:], shrink).view(exact[0].shape)
        error = float((fused(*few) - expected).norm() / expected.norm())
        if not error < LOOSE:
            raise ArithmeticError(f"the error is {error:.1e}")
        one = timed({"plain": partial(plain, *values), "fused": partial(fused, *values)}, rounds, device)["fused"]
    two = timed({"plain": partial(both, plain), "fused": partial(both, fused)}, rounds, device)["fused"]
    times = [(f"{1000 * each.median_s:.3f}", f"{each.ratio:.2f}") for each in (one, two)]
    return [*times[0], *times[1], f"{error:.0e}"]


def main() -> None:
    """Measure and write the table, shape by shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=inf, help="within which lines are begun that can end")
    asked = parser.parse_args()
    device, lines, faults = torch.device(find_device(asked.device)), list[list[str]](), list[str]()
    set_precision("tf32", device)  # the plain form's products, too
    for (shape, precision), begins in paced(product(SHAPES, PRECISIONS), asked.seconds):
        images = max(1, asked.images * 2**13 // max(2**13, shape.modes))
        cells = ["" if begins else NO_TIME, "", "", "", ""]
        try:
            if device.type == "cuda" and begins:
                cells = measured(shape, images, asked.rounds, precision, device)
        except Exception as error:  # told at the end: other shapes are to be measured all the same
            faults.append(f"{shape} {precision}: {type(error).__name__}: {error}")
        told = [f"{shape.blocks}x{shape.width}", str(shape.modes), str(images)]
        told += ["tf32" if precision == "float32" else precision, named(cut_of(shape.width).layers)]
        told += [f"{predicted_ms(shape, images, precision):.3f}"]
        lines.append([*told, *cells])
        path = write("kernel_here", device_name(device.type), "The block MLP in one kernel", HEADER, lines)
    print(path.read_text())
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
