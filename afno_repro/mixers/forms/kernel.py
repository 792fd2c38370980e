"""The block MLP of AFNO between its two FFTs in Triton (Equations 6-8): the spectrum is read once and written once.

    h = relu(W1^T z + b1),   s = S_lambda(W2^T h + b2)          kept for the backward pass: z, h and where s is not zero
    dh = conj(W2) ds where s != 0,   dz = conj(W1) (dh where h > 0),   dW = conj(input) d(output)^T,  db = sum d(output)

Blocks of up to 64 channels stay on chip: h is made in chunks of 16, each used up at once, as attention does with its
scores (every chunk after the first reads its z again, from the cache). Wider ones would need more registers than a
thread has: a kernel for one layer takes a chunk of their outputs, and runs twice. Keeping h (2.25 spectra in all, 1.75
with bf16 products) moves no more memory than making it anew, since W2's gradient reads it anyway, and saves a product.
Weight gradients add up in fixed order.
Shapes: B batch, K blocks, D channels of a block, N modes; T modes, I inputs and O outputs of a tile, P = D in whole
tiles. A spectrum is (B K D 2N) in memory, parts in turns; `row` is 2N. Kernels hold complex matrices as real pairs;
a program's `spot` is where its item (of B K) starts in memory, the columns it works on there (2T), 2N and D.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from afno_repro.mixers.forms.tiles import WIDEST, cut_of, filled

Some = Tensor | None
Layer = tuple[Tensor, Some]  # a weight by its planes, and a bias

VECTOR = 8  # modes: rows of other lengths are read number by number, and what that takes of registers spills
PROGRAMS = 264  # that a weight's gradient is shared out among, at least: two for each multiprocessor of an H100
NUMBERS = {"float32": torch.float32, "bf16": torch.bfloat16}  # that products take, float32 as tf32; h is kept in them


def fused_block_mlp(
    z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, threshold: float, precision: Literal["float32", "bf16"]
) -> Tensor:
    """S_threshold(W2^T relu(W1^T z + b1) + b2): z complex64 (B K D N), weights (K D D 2), biases (K D 1 2) -> B K D N.

    Products take tf32 (`float32`) or bf16 numbers and add up in float32.
    """
    training = torch.is_grad_enabled() and any(x.requires_grad for x in (z, w1, b1, w2, b2))
    modes = z.shape[3]
    with torch.cuda.device_of(z):
        z = pad(z, (0, -modes % VECTOR)) if modes % VECTOR else z
        return FusedBlockMLP.apply(z, w1, b1, w2, b2, threshold, NUMBERS[precision], training)[..., :modes]


class FusedBlockMLP(torch.autograd.Function):
    """fused_block_mlp, told what products take, and whether a backward pass may come."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        threshold: float,
        number: torch.dtype,
        training: bool,
    ) -> Tensor:
        x = torch.view_as_real(z.contiguous())
        s, alive = torch.empty_like(x), torch.empty_like(x, dtype=torch.int8) if training else None
        hidden = torch.empty_like(x, dtype=number) if training or z.shape[2] > WIDEST else None
        first, second = ((planes(torch.view_as_complex(w).mT, number), b.contiguous()) for w, b in ((w1, b1), (w2, b2)))
        run(x, None, first, None, hidden, second, s, alive, threshold)
        ctx.save_for_backward(x, hidden, alive, w1, w2)
        return torch.view_as_complex(s)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the AFNO kernel has no second derivatives: compute this gradient without create_graph")
        x, hidden, alive, w1, w2 = ctx.saved_tensors
        of_s = torch.view_as_real(gradient.resolve_conj().contiguous())
        of_hidden, of_x = torch.empty_like(hidden), torch.empty_like(x)
        first, second = ((planes(torch.view_as_complex(w).conj(), hidden.dtype), None) for w in (w1, w2))
        run(of_s, alive, second, hidden, of_hidden, first, of_x, None, None)
        of_first, of_second = of_layer(x, of_hidden, None), of_layer(hidden, of_s, alive)
        return torch.view_as_complex(of_x), *of_first, *of_second, None, None, None


def run(
    x: Tensor,
    gate: Some,
    first: Layer,
    kept: Some,
    middle: Some,
    second: Layer,
    y: Tensor,
    alive: Some,
    threshold: float | None,
) -> None:
    """From x by way of `middle` to y through both layers, or back if there is a `kept` h.

    A program takes T modes of a block or chunk.
    """
    batch, blocks, width, modes = x.shape[:4]
    tiles, items = cut_of(width).layers, batch * blocks
    spots, rest = triton.cdiv(modes, tiles.modes), (2 * modes, blocks, width, tiles)
    if width > WIDEST:
        grid = (items * (filled(width, tiles) // tiles.chunk), spots)
        layer_kernel[grid](x, gate, *first, kept, middle, None, None, None, *rest, num_warps=tiles.warps)
        layer_kernel[grid](middle, None, *second, None, None, y, alive, threshold, *rest, num_warps=tiles.warps)
    else:
        block_kernel[items, spots](
            x, gate, *first, kept, middle, *second, y, alive, threshold, *rest, num_warps=tiles.warps
        )


def planes(matrix: Tensor, number: torch.dtype) -> Tensor:
    """A complex matrix per block (K O I) as real planes K 2 P P, zeros around. Tensor cores want adjacent inputs."""
    blocks, width = matrix.shape[:2]
    whole = filled(width, cut_of(width).layers)
    found = torch.zeros(blocks, 2, whole, whole, dtype=number, device=matrix.device)
    found[:, 0, :width, :width], found[:, 1, :width, :width] = matrix.real, matrix.imag
    return found


def of_layer(x: Tensor, gradient: Tensor, gate: Some) -> tuple[Tensor, Tensor]:
    """A layer's gradients, weight (K D D 2) and bias (K D 1 2), from its input and its output's gated gradient."""
    batch, blocks, width, modes = x.shape[:4]
    tiles = cut_of(width).weights
    programs = blocks * triton.cdiv(width, tiles.chunk) ** 2
    parts = min(triton.cdiv(PROGRAMS, programs), batch * triton.cdiv(modes, tiles.step))
    of_weight, of_bias = (torch.empty(parts, blocks, width, size, 2, device=x.device) for size in (width, 1))
    weight_kernel[programs, parts](
        x, gradient, gate, of_weight, of_bias, 2 * modes, batch, blocks, width, tiles, num_warps=tiles.warps
    )
    return of_weight.sum(0), of_bias.sum(0)


@triton.jit(do_not_specialize=["blocks", "width"])
def block_kernel(
    x, gate, w, b, kept, middle, next_w, next_b, y, alive, threshold, row, blocks, width, tiles: tl.constexpr
):
    """Both layers of a block for T modes."""
    block, spot = place(tl.program_id(0), row, blocks, width, tiles)
    channels = tl.arange(0, tiles.unit)
    out = biased(next_b, block, channels, spot, tiles)
    for first in range(0, width, tiles.chunk):
        chunk = first + tl.arange(0, tiles.chunk)
        h = through_relu(layer(x, gate, w, b, block, chunk, spot, tiles), kept, middle, chunk, spot)
        out = product(h, weights(next_w, block, chunk, channels, spot, tiles), out)
    finish(out, y, alive, threshold, channels, spot)


@triton.jit(do_not_specialize=["blocks", "width"])
def layer_kernel(x, gate, w, b, kept, middle, y, alive, threshold, row, blocks, width, tiles: tl.constexpr):
    """One layer of a wide block for T modes and a chunk of its outputs: the one that ends in relu if there is no y."""
    chunks = tl.cdiv(width, tiles.unit) * (tiles.unit // tiles.chunk)
    block, spot = place(tl.program_id(0) // chunks, row, blocks, width, tiles)
    outputs = tl.program_id(0) % chunks * tiles.chunk + tl.arange(0, tiles.chunk)
    out = layer(x, gate, w, b, block, outputs, spot, tiles)
    if y is None:
        through_relu(out, kept, middle, outputs, spot)
    else:
        finish(out, y, alive, threshold, outputs, spot)


@triton.jit(do_not_specialize=["batch", "blocks", "width"])
def weight_kernel(x, gradient, gate, of_weight, of_bias, row, batch, blocks, width, tiles: tl.constexpr):
    """A tile (I O) of a block's weight gradient, for one part of all images' modes."""
    number: tl.constexpr = gradient.dtype.element_ty if x.dtype.element_ty == tl.float32 else x.dtype.element_ty
    side, part = tl.cdiv(width, tiles.chunk), tl.program_id(1)
    tile, block = tl.program_id(0) % (side * side), tl.program_id(0) // (side * side)
    inputs = tile // side * tiles.chunk + tl.arange(0, tiles.chunk)
    outputs = tile % side * tiles.chunk + tl.arange(0, tiles.chunk)
    of_w = (tl.full((tiles.chunk, tiles.chunk), 0.0, tl.float32), tl.full((tiles.chunk, tiles.chunk), 0.0, tl.float32))
    of_b = (tl.full((tiles.chunk,), 0.0, tl.float32), tl.full((tiles.chunk,), 0.0, tl.float32))
    pieces = tl.cdiv(row, 2 * tiles.step)  # of an image
    for piece in range(part, batch * pieces, tl.num_programs(1)):
        start = (piece // pieces * blocks + block).to(tl.int64) * width * row
        spot = (start, piece % pieces * 2 * tiles.step + tl.arange(0, 2 * tiles.step), row, width)
        real, imag = read(x, None, inputs, spot)
        of_y = read(gradient, gate, outputs, spot)
        of_w = product((tl.trans(real), -tl.trans(imag)), (of_y[0].to(number), of_y[1].to(number)), of_w)
        of_b = (of_b[0] + tl.sum(of_y[0], 0), of_b[1] + tl.sum(of_y[1], 0))
    rows, inside = (part * blocks + block) * width, outputs < width
    if tile < side:
        tl.store(of_bias + 2 * (rows + outputs), of_b[0], mask=inside)
        tl.store(of_bias + 2 * (rows + outputs) + 1, of_b[1], mask=inside)
    offsets = 2 * ((rows + inputs[:, None]) * width + outputs[None, :])
    inside = (inputs < width)[:, None] & inside[None, :]
    tl.store(of_weight + offsets, of_w[0], mask=inside)
    tl.store(of_weight + offsets + 1, of_w[1], mask=inside)


@triton.jit
def place(item, row, blocks, width, tiles: tl.constexpr):
    """The block of an item (of B K), and the program's spot."""
    columns = tl.program_id(1) * 2 * tiles.modes + tl.arange(0, 2 * tiles.modes)
    return item % blocks, (item.to(tl.int64) * width * row, columns, row, width)


@triton.jit
def layer(x, gate, w, b, block, outputs, spot, tiles: tl.constexpr):
    """W^T x + b for a tile's modes and outputs (T O), x being zero where its gate is."""
    y = biased(b, block, outputs, spot, tiles)
    for first in range(0, spot[3], tiles.step):
        inputs = first + tl.arange(0, tiles.step)
        matrix = weights(w, block, inputs, outputs, spot, tiles)
        y = product(read(x, gate, inputs, spot), matrix, y)
    return y


@triton.jit
def product(x, w, y):
    """y + x w for complex matrices (T I, I O, T O), in the numbers of w."""
    number: tl.constexpr = w[0].dtype
    x_real, x_imag, minus = x[0].to(number), x[1].to(number), (-w[1].to(tl.float32)).to(number)
    real = tl.dot(x_imag, minus, tl.dot(x_real, w[0], y[0], input_precision="tf32"), input_precision="tf32")
    imag = tl.dot(x_imag, w[0], tl.dot(x_real, w[1], y[1], input_precision="tf32"), input_precision="tf32")
    return real, imag


@triton.jit
def through_relu(h, kept, to, channels, spot):
    """relu(h), or h where a `kept` h is positive, its gradient; written if there is a place. A nan stays so."""
    real, imag = h if kept is None else read(kept, None, channels, spot)
    h = (tl.where(real <= 0, 0.0, h[0]), tl.where(imag <= 0, 0.0, h[1]))
    if to is not None:
        write(to, h, channels, spot)
    return h


@triton.jit
def finish(y, to, alive, threshold, channels, spot):
    """Write y, forth by S_lambda(y) = y - clamp(y, -lambda, lambda), and where that is not zero, if it is kept."""
    if threshold is not None:
        y = (y[0] - tl.clamp(y[0], -threshold, threshold), y[1] - tl.clamp(y[1], -threshold, threshold))
    write(to, y, channels, spot)
    if alive is not None:
        write(alive, (y[0] != 0, y[1] != 0), channels, spot)


@triton.jit
def biased(b, block, channels, spot, tiles: tl.constexpr):
    """What a product is added to: a block's bias (K D 1 2), if any, for every mode (T O)."""
    real, width = tl.full((tiles.modes, channels.shape[0]), 0.0, tl.float32), spot[3]
    imag = real
    if b is not None:
        offsets, inside = 2 * (block * width + channels)[None, :], (channels < width)[None, :]
        real += tl.load(b + offsets, mask=inside, other=0.0)
        imag += tl.load(b + offsets + 1, mask=inside, other=0.0)
    return real, imag


@triton.jit
def weights(w, block, inputs, outputs, spot, tiles: tl.constexpr):
    """A tile (I O) of a block's weight, as `planes` lays it out."""
    whole = tl.cdiv(spot[3], tiles.unit) * tiles.unit
    offsets = (block * 2 * whole + outputs[None, :]) * whole + inputs[:, None]
    return tl.load(w + offsets), tl.load(w + whole * whole + offsets)


@triton.jit
def read(x, gate, channels, spot):
    """A tile (T C) of a spectrum, zero where its gate is, if it has one."""
    start, offsets, inside = at(channels, spot)
    values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
    if gate is not None:
        values = tl.where(tl.load(gate + start + offsets, mask=inside, other=0) != 0, values, 0.0)
    real, imag = tl.split(tl.reshape(values, (values.shape[0], values.shape[1] // 2, 2)))
    return tl.trans(real), tl.trans(imag)


@triton.jit
def write(x, values, channels, spot):
    """A tile (T C) of a spectrum."""
    start, offsets, inside = at(channels, spot)
    pairs = tl.reshape(tl.join(tl.trans(values[0]), tl.trans(values[1])), offsets.shape)
    tl.store(x + start + offsets, pairs, mask=inside)


@triton.jit
def at(channels, spot):
    """Where a tile lies in memory, from where its item starts (C 2T), and what of it there is."""
    start, columns, row, width = spot
    return start, channels[:, None] * row + columns[None, :], (channels < width)[:, None] & (columns < row)[None, :]
