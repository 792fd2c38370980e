"""The block MLP of AFNO between its two FFTs in Triton (Equations 6-8): the spectrum is read once and written once.

    h = relu(W1^T z + b1),   s = S_lambda(W2^T h + b2)          kept for the backward pass: z, h and where s is not zero
    dh = conj(W2) ds where s != 0,   dz = conj(W1) (dh where h > 0),   dW = conj(input) d(output)^T,  db = sum d(output)

Blocks of up to 128 channels stay on chip: h is made in chunks of 64, each used up at once, as attention does with its
scores (a second chunk reads its z again, from the cache). Wider ones are bound by arithmetic: a kernel for one layer
fills its tiles with them, and runs twice. Keeping h (2.25 spectra in all, 1.75 with bf16 products) moves no more memory
than making it anew, since W2's gradient reads it anyway, and saves a product. Weight gradients add up in fixed order.
Shapes: B batch, K blocks, D channels of a block, N modes; T modes, I inputs and O outputs of a tile, P = D in whole
tiles. A spectrum is (B K D 2N) in memory, parts in turns; `row` is 2N. Kernels hold complex matrices as real pairs.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"

from typing import Any, Literal, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

Some = Tensor | None
Layer = tuple[Tensor, Some]  # a weight by its planes, and a bias

WIDEST = 128  # channels of a block that stay on chip
SPLITS = 16  # parts that a weight's gradient is summed in
# What h is kept in, what products take.
NUMBERS = {"float32": (torch.float32, tl.float32), "bf16": (torch.bfloat16, tl.bfloat16)}


class Cut(NamedTuple):
    """A block and its tiles, for which kernels are compiled."""

    blocks: int  # K
    width: int  # D
    padded: int  # P
    chunk: int  # hidden channels at a time; in a kernel for one layer, outputs
    step: int  # inputs at a time; in a weight's gradient, modes
    modes: int  # T
    number: tl.dtype


def cut_of(blocks: int, width: int, number: tl.dtype) -> Cut:
    """Tiles within a Hopper multiprocessor's 227 KiB of shared memory; 64 rows are what its tensor cores take."""
    padded = max(16, triton.next_power_of_2(width)) if width <= WIDEST else triton.cdiv(width, 64) * 64
    return Cut(blocks, width, padded, chunk=min(padded, 64), step=min(padded, 32), modes=64, number=number)


def fused_block_mlp(
    z: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, threshold: float, precision: Literal["float32", "bf16"]
) -> Tensor:
    """S_threshold(W2^T relu(W1^T z + b1) + b2): z complex64 (B K D N), weights (K D D 2), biases (K D 1 2) -> B K D N.

    Products take tf32 (`float32`) or bf16 numbers and add up in float32.
    """
    training = torch.is_grad_enabled() and any(x.requires_grad for x in (z, w1, b1, w2, b2))
    kept, number = NUMBERS[precision]
    with torch.cuda.device_of(z):
        return FusedBlockMLP.apply(z, w1, b1, w2, b2, threshold, cut_of(z.shape[1], z.shape[2], number), kept, training)


class FusedBlockMLP(torch.autograd.Function):
    """fused_block_mlp, told its tiles, what to keep h in, and whether a backward pass may come."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        threshold: float,
        cut: Cut,
        kept: torch.dtype,
        training: bool,
    ) -> Tensor:
        x = torch.view_as_real(z.contiguous())
        s, alive = torch.empty_like(x), torch.empty_like(x, dtype=torch.int8) if training else None
        hidden = torch.empty_like(x, dtype=kept) if training or cut.width > WIDEST else None
        first, second = ((planes(torch.view_as_complex(w).mT, cut), b.contiguous()) for w, b in ((w1, b1), (w2, b2)))
        run(x, None, first, None, hidden, second, s, alive, threshold, cut)
        ctx.save_for_backward(x, hidden, alive, w1, w2)
        ctx.cut = cut
        return torch.view_as_complex(s)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the AFNO kernel has no second derivatives: compute this gradient without create_graph")
        (x, hidden, alive, w1, w2), cut = ctx.saved_tensors, ctx.cut
        of_s = torch.view_as_real(gradient.resolve_conj().contiguous())
        of_hidden, of_x = torch.empty_like(hidden), torch.empty_like(x)
        first, second = ((planes(torch.view_as_complex(w).conj(), cut), None) for w in (w1, w2))
        run(of_s, alive, second, hidden, of_hidden, first, of_x, None, None, cut)
        of_first, of_second = of_layer(x, of_hidden, None, cut), of_layer(hidden, of_s, alive, cut)
        return torch.view_as_complex(of_x), *of_first, *of_second, None, None, None, None


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
    cut: Cut,
) -> None:
    """From x by way of `middle` to y through both layers, or back if there is a `kept` h.

    A program takes T modes of a block or chunk.
    """
    row, items, tiles = 2 * x.shape[3], x.shape[0] * cut.blocks, triton.cdiv(x.shape[3], cut.modes)
    if cut.width > WIDEST:
        grid = (items * (cut.padded // cut.chunk), tiles)
        layer_kernel[grid](x, gate, *first, kept, middle, None, None, None, row, cut)
        layer_kernel[grid](middle, None, *second, None, None, y, alive, threshold, row, cut)
    else:
        warps = 8 if cut.padded == WIDEST else 4
        block_kernel[items, tiles](
            x, gate, *first, kept, middle, *second, y, alive, threshold, row, cut, num_warps=warps
        )


def planes(matrix: Tensor, cut: Cut) -> Tensor:
    """A complex matrix per block (K O I) as real planes 2 K P P, zeros around. Tensor cores want adjacent inputs."""
    found = torch.zeros(2, cut.blocks, cut.padded, cut.padded, device=matrix.device)
    found[0, :, : cut.width, : cut.width], found[1, :, : cut.width, : cut.width] = matrix.real, matrix.imag
    return found


def of_layer(x: Tensor, gradient: Tensor, gate: Some, cut: Cut) -> tuple[Tensor, Tensor]:
    """A layer's gradients, weight (K D D 2) and bias (K D 1 2), from its input and its output's gated gradient."""
    of_weight, of_bias = (
        torch.empty(SPLITS, cut.blocks, cut.width, size, 2, device=x.device) for size in (cut.width, 1)
    )
    grid = (cut.blocks * triton.cdiv(cut.width, cut.chunk) ** 2, SPLITS)
    weight_kernel[grid](x, gradient, gate, of_weight, of_bias, 2 * x.shape[3], x.shape[0], cut)
    return of_weight.sum(0), of_bias.sum(0)


@triton.jit
def block_kernel(x, gate, w, b, kept, middle, next_w, next_b, y, alive, threshold, row, cut: tl.constexpr):
    """Both layers of a block for T modes."""
    block, spot = place(tl.program_id(0), row, cut)
    channels = tl.arange(0, cut.padded)
    out = biased(next_b, block, channels, cut)
    for first in range(0, cut.width, cut.chunk):
        chunk = first + tl.arange(0, cut.chunk)
        h = through_relu(layer(x, gate, w, b, block, chunk, spot, cut), kept, middle, chunk, spot, cut)
        out = product(h, weights(next_w, block, chunk, channels, cut), out, cut.number)
    finish(out, y, alive, threshold, channels, spot, cut)


@triton.jit
def layer_kernel(x, gate, w, b, kept, middle, y, alive, threshold, row, cut: tl.constexpr):
    """One layer of a wide block for T modes and a chunk of its outputs: the one that ends in relu if there is no y."""
    chunks = cut.padded // cut.chunk
    block, spot = place(tl.program_id(0) // chunks, row, cut)
    outputs = tl.program_id(0) % chunks * cut.chunk + tl.arange(0, cut.chunk)
    out = layer(x, gate, w, b, block, outputs, spot, cut)
    if y is None:
        through_relu(out, kept, middle, outputs, spot, cut)
    else:
        finish(out, y, alive, threshold, outputs, spot, cut)


@triton.jit
def weight_kernel(x, gradient, gate, of_weight, of_bias, row, batch, cut: tl.constexpr):
    """A tile (I O) of a block's weight gradient, for one part of all images' modes."""
    tiles, part = tl.cdiv(cut.width, cut.chunk), tl.program_id(1)
    tile, block = tl.program_id(0) % (tiles * tiles), tl.program_id(0) // (tiles * tiles)
    inputs, outputs = (
        tile // tiles * cut.chunk + tl.arange(0, cut.chunk),
        tile % tiles * cut.chunk + tl.arange(0, cut.chunk),
    )
    of_w = (tl.full((cut.chunk, cut.chunk), 0.0, tl.float32), tl.full((cut.chunk, cut.chunk), 0.0, tl.float32))
    of_b = (tl.full((cut.chunk,), 0.0, tl.float32), tl.full((cut.chunk,), 0.0, tl.float32))
    pieces = tl.cdiv(row, 2 * cut.step)  # of an image
    for piece in range(part, batch * pieces, tl.num_programs(1)):
        start = (piece // pieces * cut.blocks + block).to(tl.int64) * cut.width * row
        spot = (start, piece % pieces * 2 * cut.step + tl.arange(0, 2 * cut.step), row)
        real, imag = read(x, None, inputs, spot, cut)
        of_y = read(gradient, gate, outputs, spot, cut)
        of_w = product((tl.trans(real), -tl.trans(imag)), of_y, of_w, cut.number)
        of_b = (of_b[0] + tl.sum(of_y[0], 0), of_b[1] + tl.sum(of_y[1], 0))
    rows, inside = (part * cut.blocks + block) * cut.width, outputs < cut.width
    if tile < tiles:
        tl.store(of_bias + 2 * (rows + outputs), of_b[0], mask=inside)
        tl.store(of_bias + 2 * (rows + outputs) + 1, of_b[1], mask=inside)
    offsets, inside = (
        2 * ((rows + inputs[:, None]) * cut.width + outputs[None, :]),
        (inputs < cut.width)[:, None] & inside[None, :],
    )
    tl.store(of_weight + offsets, of_w[0], mask=inside)
    tl.store(of_weight + offsets + 1, of_w[1], mask=inside)


@triton.jit
def place(item, row, cut: tl.constexpr):
    """The block of an item (of B K), and the program's spot: the item's start in memory, the columns there (2T), 2N."""
    return item % cut.blocks, (
        item.to(tl.int64) * cut.width * row,
        tl.program_id(1) * 2 * cut.modes + tl.arange(0, 2 * cut.modes),
        row,
    )


@triton.jit
def layer(x, gate, w, b, block, outputs, spot, cut: tl.constexpr):
    """W^T x + b for a tile's modes and outputs (T O), x being zero where its gate is."""
    y = biased(b, block, outputs, cut)
    for first in range(0, cut.width, cut.step):
        inputs = first + tl.arange(0, cut.step)
        y = product(read(x, gate, inputs, spot, cut), weights(w, block, inputs, outputs, cut), y, cut.number)
    return y


@triton.jit
def product(x, w, y, number: tl.constexpr):
    """y + x w for complex matrices (T I, I O, T O)."""
    x_real, x_imag = x[0].to(number), x[1].to(number)
    w_real, w_imag, minus = w[0].to(number), w[1].to(number), (-w[1]).to(number)
    real = tl.dot(x_imag, minus, tl.dot(x_real, w_real, y[0], input_precision="tf32"), input_precision="tf32")
    imag = tl.dot(x_imag, w_real, tl.dot(x_real, w_imag, y[1], input_precision="tf32"), input_precision="tf32")
    return real, imag


@triton.jit
def through_relu(h, kept, to, channels, spot, cut: tl.constexpr):
    """relu(h), or h where a `kept` h is positive, its gradient; written if there is a place. A nan stays so."""
    real, imag = h if kept is None else read(kept, None, channels, spot, cut)
    h = (tl.where(real <= 0, 0.0, h[0]), tl.where(imag <= 0, 0.0, h[1]))
    if to is not None:
        write(to, h, channels, spot, cut)
    return h


@triton.jit
def finish(y, to, alive, threshold, channels, spot, cut: tl.constexpr):
    """Write y, forth by S_lambda(y) = y - clamp(y, -lambda, lambda), and where that is not zero, if it is kept."""
    if threshold is not None:
        y = (y[0] - tl.clamp(y[0], -threshold, threshold), y[1] - tl.clamp(y[1], -threshold, threshold))
    write(to, y, channels, spot, cut)
    if alive is not None:
        write(alive, (y[0] != 0, y[1] != 0), channels, spot, cut)


@triton.jit
def biased(b, block, channels, cut: tl.constexpr):
    """What a product is added to: a block's bias (K D 1 2), if any, for every mode (T O)."""
    real = tl.full((cut.modes, channels.shape[0]), 0.0, tl.float32)
    imag = real
    if b is not None:
        offsets, inside = 2 * (block * cut.width + channels)[None, :], (channels < cut.width)[None, :]
        real += tl.load(b + offsets, mask=inside, other=0.0)
        imag += tl.load(b + offsets + 1, mask=inside, other=0.0)
    return real, imag


@triton.jit
def weights(w, block, inputs, outputs, cut: tl.constexpr):
    """A tile (I O) of a block's weight, as `planes` lays it out."""
    offsets = (block * cut.padded + outputs[None, :]) * cut.padded + inputs[:, None]
    return tl.load(w + offsets), tl.load(w + cut.blocks * cut.padded * cut.padded + offsets)


@triton.jit
def read(x, gate, channels, spot, cut: tl.constexpr):
    """A tile (T C) of a spectrum, zero where its gate is, if it has one."""
    start, offsets, inside = at(channels, spot, cut)
    values = tl.load(x + start + offsets, mask=inside, other=0.0).to(tl.float32)
    if gate is not None:
        values = tl.where(tl.load(gate + start + offsets, mask=inside, other=0) != 0, values, 0.0)
    real, imag = tl.split(tl.reshape(values, (values.shape[0], values.shape[1] // 2, 2)))
    return tl.trans(real), tl.trans(imag)


@triton.jit
def write(x, values, channels, spot, cut: tl.constexpr):
    """A tile (T C) of a spectrum."""
    start, offsets, inside = at(channels, spot, cut)
    tl.store(
        x + start + offsets, tl.reshape(tl.join(tl.trans(values[0]), tl.trans(values[1])), offsets.shape), mask=inside
    )


@triton.jit
def at(channels, spot, cut: tl.constexpr):
    """Where a tile lies in memory, from where its item starts (C 2T), and what of it there is."""
    start, columns, row = spot
    return start, channels[:, None] * row + columns[None, :], (channels < cut.width)[:, None] & (columns < row)[None, :]
