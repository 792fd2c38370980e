"""A matrix of its own for every mode (FNO, AFNO with static weights): complex products, or real ones under TF32.

    [r s] [A B; -B A] = [r A - s B, r B + s A]        (r + is) (A + iB)

TF32 units multiply real matrices alone; the second row of blocks is i (A + iB).
Shapes: B batch, R M kept modes along H and W, K blocks, D channels of a block.
"""

import torch
from torch import Tensor

from afno_repro.mixers.forms.products import real_matrix
from afno_repro.mixers.forms.rule import prefers_real


def mode_matmul(z: Tensor, weight: Tensor) -> Tensor:
    """One matrix per mode and block: z (B K D R M), weight (R M K D D', real view) -> B K D' R M."""
    z = z.permute(3, 4, 1, 0, 2)  # R M K B D
    multiply = real_matmul if prefers_real(z) else complex_matmul
    return multiply(z, weight).permute(3, 2, 4, 0, 1).contiguous()


def complex_matmul(z: Tensor, weight: Tensor) -> Tensor:
    """As one complex product: z (R M K B D), weight (R M K D D', real view) -> R M K B D'."""
    return z @ torch.view_as_complex(weight)


def real_matmul(z: Tensor, weight: Tensor) -> Tensor:
    """As one real product, in which parts lie beside each other as they do in memory."""
    real, imaginary = weight.unbind(-1)
    turned = torch.stack([-imaginary, real], -1)  # i times the weight
    matrix = torch.stack([weight, turned], -3)  # R M K D 2 D' 2
    product = torch.view_as_real(z.contiguous()).flatten(-2) @ matrix.flatten(-2).flatten(-3, -2)
    return torch.view_as_complex(product.unflatten(-1, (-1, 2)))


def mode_products(z: Tensor, weight: Tensor) -> Tensor:
    """mode_matmul of parts that lie apart: z (B 2 R M C), weight (R M K D D' 2) -> B 2 R M C', C = K D."""
    z = z.unflatten(-1, weight.shape[2:4]).permute(2, 3, 4, 0, 1, 5).flatten(-2)  # R M K B 2D
    y = (z @ real_matrix(weight)).unflatten(-1, (2, -1))  # R M K B 2 D'
    return y.permute(3, 4, 0, 1, 2, 5).flatten(-2)
