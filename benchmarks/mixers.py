"""Token mixers side by side: `python -m benchmarks.mixers [--rounds 9] [--device cpu] [--shapes 2] [--batch 1]`.

Ratios are to AFNO as it is usually written (benchmarks/literal.py), above 1 faster; `--compiled` adds the same through
torch.compile, to all shapes or the first N in the first precision, which takes its time before each. Every form's first
image is held to float64 first, attention up to MOST_TOKENS: a Fourier mixer in float32 with an error above TOLERANCE,
or any other above LOOSE, ends the benchmark with 1; one that a GPU has no memory for is told as such. Each
`--precision` has its table, written after every shape. `saved` is what autograd keeps for the backward pass, in units
of the input; `floor` the time that the form's multiplications and additions would take at the rate of a large matrix
product, over the measured one; `GB/s` is input and output over the time of the forward pass, `peak` the memory of a
CUDA device beyond mixer and input, forward and backward.
"""

import argparse
import copy
import gc
import math
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from math import inf
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from afno_repro.memory import out_of_memory
from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.efficient_self_attention import EfficientSelfAttention
from afno_repro.mixers.gfn import GFN
from afno_repro.mixers.long_short import LongShort
from afno_repro.mixers.self_attention import SelfAttention
from afno_repro.precision import autocast, set_precision
from afno_repro.runs.provenance import device_name
from benchmarks.literal import LiteralAFNO, LiteralGFN, LiteralLongShort
from benchmarks.side_by_side import NO_TIME, Timing, paced, timed, write

TOLERANCE = 1e-6  # of the mixer's output, relative to its largest value
# With more, one pass takes a minute on a CPU, and the scores in float64 more than a GPU's memory.
MOST_TOKENS = {"self-attention": 4096, "efficient self-attention": 16384}
EXACT = re.compile("(AFNO|GFN)(?!.*kernel)")
LOOSE = 2e-2  # of attention, whose sums are longer, and of tensor cores; the table shows every error
NAMES = {"float32": "mixers", "tf32": "mixers_tf32", "bf16": "mixers_bf16"}  # of the tables
HEAD_DIM, WINDOW, RANK, REDUCTION = 64, 8, 8, 4


class Shape(NamedTuple):
    """A square grid of tokens, their channels, and AFNO's blocks."""

    side: int  # tokens a side
    dim: int
    blocks: int

    def __str__(self) -> str:
        return f"{self.side}x{self.side} d{self.dim} k{self.blocks}"


SHAPES = [
    Shape(56, 768, 8),
    Shape(56, 750, 1),
    Shape(56, 384, 16),
    Shape(64, 440, 5),
    Shape(32, 512, 8),
    Shape(128, 288, 2),
    Shape(256, 208, 1),
]
HEADER = [
    "shape",
    "variant",
    "forward ms",
    "forward ratio",
    "10-90%",
    "both ms",
    "both ratio",
    "10-90%",
    "saved",
    "floor",
    "GB/s",
    "peak MiB",
    "error",
]


def mixers(shape: Shape) -> dict[str, nn.Module]:
    """The reference first; all of them on the same number of tokens and channels."""
    grid, heads = (shape.side, shape.side), max(1, shape.dim // HEAD_DIM)
    while shape.dim % heads:
        heads -= 1

    def afno(keep: float) -> AFNO:
        return AFNO(
            shape.dim, grid, num_blocks=shape.blocks, sparsity_threshold=0.01, keep=keep, bias="identity", init_std=0.02
        )

    whole = afno(1.0)
    halves = {f"AFNO keep {keep:.3g}": afno(keep) for keep in (0.5, 32 / 56)}
    for each in halves.values():
        each.load_state_dict(whole.state_dict())
    gfn, far = GFN(shape.dim, grid, init_std=0.02), {"num_heads": heads, "window": WINDOW, "rank": RANK}
    long_short, literal = LongShort(shape.dim, grid, **far), LiteralLongShort(shape.dim, grid, **far)
    literal.load_state_dict(long_short.state_dict())
    return {
        "literal AFNO": LiteralAFNO(whole),
        "AFNO": whole,
        **halves,
        "literal GFN": LiteralGFN(gfn),
        "GFN": gfn,
        "literal long-short": literal,
        "long-short": long_short,
        "efficient self-attention": EfficientSelfAttention(shape.dim, grid, num_heads=heads, reduction=REDUCTION),
        "self-attention": SelfAttention(shape.dim, grid, num_heads=heads),
    }


@torch.no_grad()
def error(mixer: nn.Module, x: Tensor, precision: str = "float32") -> float:
    """The largest difference of the first image from the same mixer in float64, over the largest value."""
    exact = copy.deepcopy(mixer).double()(x[:1].double())
    with autocast(x.device, precision):
        found = mixer(x)[:1]
    return float((found - exact).abs().max() / exact.abs().max())


def saved_units(mixer: nn.Module, x: Tensor, precision: str = "float32") -> float:
    """Bytes that the forward pass keeps for the backward one, less weights, over the input's; each memory once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in mixer.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself it would hold its own graph for ever

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(x.device, precision):
        output = mixer(x.clone().requires_grad_())
    return sum(kept.values()) / x.nbytes if output is not None else 0.0


def floor_flops(shape: Shape, batch: int) -> float:
    """Multiplications and additions of a whole AFNO layer: both transforms and the block MLP."""
    tokens, modes = shape.side**2, shape.side * (shape.side // 2 + 1)
    return batch * (2 * 2.5 * tokens * math.log2(tokens) * shape.dim + 16 * shape.dim**2 / shape.blocks * modes)


def product_rate(device: torch.device) -> float:
    """Multiplications and additions a second of a large float32 matrix product."""
    a = torch.randn(1536, 1536, device=device)
    took = timed({"product": partial(torch.mm, a, a)}, 5, device)["product"].median_s
    return 2 * 1536**3 / took


def forward(mixer: nn.Module, x: Tensor, precision: str) -> None:
    """A pass without gradients."""
    with torch.no_grad(), autocast(x.device, precision):
        mixer(x)


def both(mixer: nn.Module, x: Tensor, precision: str) -> None:
    """A pass with the gradients of input and weights."""
    with autocast(x.device, precision):
        y = mixer(x.clone().requires_grad_())
    y.sum().backward()


def fits(mixer: nn.Module, x: Tensor, precision: str) -> bool:
    """Whether both passes find the memory that they need; what others left is given back first."""
    gc.collect()
    if x.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        both(mixer, x, precision)
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        return False
    finally:
        mixer.zero_grad()
    return True


def peak_mib(mixer: nn.Module, x: Tensor, precision: str) -> str:
    """The most memory that a CUDA device holds during both passes, less what it held before; nothing on a CPU."""
    if x.device.type != "cuda":
        return ""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both(mixer, x, precision)
    return f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}"


def small(name: str, shape: Shape) -> bool:
    """Whether a mixer's tokens are few enough for float64, or for a CPU."""
    return all(shape.side**2 <= most for kind, most in MOST_TOKENS.items() if name.startswith(kind))


def compiled_literal(afno: AFNO) -> nn.Module:
    """The usual AFNO as one graph of torch.compile, anew for every shape; a copy of it in float64 is not compiled."""
    torch.compiler.reset()  # of one function a compiler keeps but some graphs
    mixer = LiteralAFNO(afno)
    mixer.compile(dynamic=False, fullgraph=True)
    return mixer


def measured(
    shape: Shape, batch: int, rounds: int, device: torch.device, compiled: bool, precision: str
) -> list[list[str]]:
    """A line for each mixer; ends the benchmark where an AFNO form is not exact."""
    gc.collect()
    gc.freeze()  # all that libraries hold, or `fits` looks through it for every mixer: half a second with a compiler
    set_precision(precision, device)
    x = torch.randn(batch, shape.side, shape.side, shape.dim, device=device)
    found = mixers(shape)
    if compiled:
        found["literal AFNO, compiled"] = compiled_literal(found["AFNO"])  # type: ignore[arg-type]
    if device.type == "cuda":
        from benchmarks.cuda import only_on_cuda  # Triton comes with torch's CUDA builds alone

        found |= only_on_cuda(found["AFNO"], found["self-attention"])  # type: ignore[arg-type]
    found = {name: mixer.to(device) for name, mixer in found.items() if device.type == "cuda" or small(name, shape)}
    lacking = [name for name, mixer in found.items() if not fits(mixer, x, precision)]
    found = {name: mixer for name, mixer in found.items() if name not in lacking}
    lines = [[str(shape), name, "out of memory", *[""] * (len(HEADER) - 3)] for name in lacking]
    if "literal AFNO" in lacking:  # nothing to compare with
        return lines
    errors = {name: error(mixer, x, precision) for name, mixer in found.items() if small(name, shape)}
    tight = {name for name in errors if precision == "float32" and EXACT.search(name)}
    if wrong := {name: each for name, each in errors.items() if each > (TOLERANCE if name in tight else LOOSE)}:
        sys.exit(f"{shape} in {precision}: too far from float64: {wrong}")

    def calls(run: Callable[[nn.Module, Tensor, str], None]) -> dict[str, Callable[[], Any]]:
        return {name: partial(run, mixer, x, precision) for name, mixer in found.items()}

    one, two = timed(calls(forward), rounds, device), timed(calls(both), rounds, device)
    floor_s = floor_flops(shape, batch) / product_rate(device)
    for name, mixer in found.items():
        floor = f"{100 * floor_s / one[name].median_s:.0f}%" if name in ("literal AFNO", "AFNO") else ""
        moved = f"{2 * x.nbytes / one[name].median_s / 1e9:.1f}"
        saved = f"{saved_units(mixer, x, precision):.1f}"
        lines.append(
            [
                str(shape),
                name,
                *cells(one[name]),
                *cells(two[name]),
                saved,
                floor,
                moved,
                peak_mib(mixer, x, precision),
                f"{errors[name]:.0e}" if name in errors else "",
            ]
        )
    return lines


def cells(timing: Timing) -> list[str]:
    """Milliseconds, ratio and its range."""
    return [f"{1000 * timing.median_s:.1f}", f"{timing.ratio:.2f}", f"{timing.low:.2f}-{timing.high:.2f}"]


def main() -> None:
    """Measure all shapes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="only the first so many")
    parser.add_argument("--side", type=int, help="tokens a side, in place of the shapes' own")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["float32"], choices=list(NAMES))
    usual = "also the usual AFNO through torch.compile, on the first N shapes"
    parser.add_argument("--compiled", nargs="?", type=int, metavar="N", default=0, const=len(SHAPES), help=usual)
    parser.add_argument("--seconds", type=float, default=inf, help="within which lines are begun that can end")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console, device, title = Console(stderr=True), torch.device(asked.device), f"Token mixers, batch {asked.batch}"
    lines: dict[str, list[list[str]]] = {precision: [] for precision in asked.precision}
    for ((i, shape), precision), begins in paced(product(enumerate(SHAPES[: asked.shapes]), lines), asked.seconds):
        shape = shape._replace(side=asked.side or shape.side)
        started = time.perf_counter()
        compiled = i < asked.compiled and precision == asked.precision[0]
        made = [[str(shape), "AFNO", NO_TIME, *[""] * (len(HEADER) - 3)]]
        if begins:
            made = measured(shape, asked.batch, asked.rounds, device, compiled, precision)
        lines[precision] += made
        write(NAMES[precision], device_name(asked.device), f"{title}, {precision}", HEADER, lines[precision])
        console.print(f"{shape} in {precision}: {time.perf_counter() - started:.0f} s")
    for precision, all_lines in lines.items():
        if ours := [float(line[3]) for line in all_lines if line[1] == "AFNO" and line[3]]:
            middle = statistics.median(ours)
            print(
                f"{precision}: AFNO is {middle:.2f} times as fast forward as the literal layer, the median over shapes"
            )


if __name__ == "__main__":
    main()
