"""Which form of a Fourier mixer runs: this rule alone decides, and no option. All compute the same.

On a GPU it is FFTs, followed by native complex products in float32 and by real ones where those may round to TF32. The
kernel of kernel.py made training slower there.
"""

import math

import torch
from torch import Tensor

from afno_repro.mixers.spectral import Modes, on_gpu

PRODUCTS_RATE = 8  # operations of matrix products in the time of one of an FFT's, on a CPU
WIDE = 384  # channels of a block from which three real products beat a complex one, on a CPU


def takes_no_complex() -> bool:
    """Whether a compiler is at work: it has no code of its own for complex numbers, and is given products.py."""
    return torch.compiler.is_compiling()


def prefers_products(x: Tensor, modes: Modes) -> bool:
    """Whether tokens x (B H W C) take the form of products.py: under a compiler always, on a CPU where it is faster."""
    if takes_no_complex():
        return True
    height, width = x.shape[1], x.shape[2]
    rows, columns = modes.low + modes.high, modes.columns
    products = 4 * columns + 8 * rows * columns / width  # a channel and token
    return x.device.type == "cpu" and products <= PRODUCTS_RATE * 2.5 * math.log2(height * width)


def prefers_real(x: Tensor) -> bool:
    """Whether FFTs are followed by the real products of real.py and per_mode.py: on a GPU that may multiply as TF32.

    Its units for that take real factors alone.
    """
    return on_gpu(x) and torch.backends.cuda.matmul.allow_tf32


def prefers_planes(x: Tensor, width: int) -> bool:
    """Whether FFTs are followed by the products of planes.py: on a CPU, for blocks of many channels."""
    return x.device.type == "cpu" and width >= WIDE
