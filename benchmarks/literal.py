"""Mixers as they are usually written: what our forms are measured against, on the same weights.

AFNO: channels-last transforms, every complex product as four real einsums, a zero-filled buffer for each part of each
layer. GFN: channels-last transforms. Long-short: windows cut out by `unfold` of channels-first images.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softshrink, unfold

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.gfn import GFN
from afno_repro.mixers.long_short import LongShort


class LiteralAFNO(nn.Module):
    """The same function as an AFNO of keep 1 with the bias identity, on its weights."""

    def __init__(self, afno: AFNO):
        super().__init__()
        self.afno = afno

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        """Mix tokens: B H W C -> B H W C."""
        afno, (batch, height, width, dim) = self.afno, x.shape
        z = torch.fft.rfft2(x, dim=(1, 2), norm="ortho").unflatten(-1, (afno.num_blocks, -1))  # B H M K D
        real, imaginary = layer(z.real, z.imag, afno.w1, afno.b1)
        real, imaginary = layer(torch.relu(real), torch.relu(imaginary), afno.w2, afno.b2)
        z = softshrink(torch.stack([real, imaginary], dim=-1), afno.shrink.lambd)
        z = torch.view_as_complex(z).reshape(batch, height, width // 2 + 1, dim)
        return torch.fft.irfft2(z, s=(height, width), dim=(1, 2), norm="ortho") + x


def layer(real: Tensor, imaginary: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One block-diagonal complex layer on real and imaginary parts (B H M K D); weight K D D 2, bias K D 1 2."""

    def product(z: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("...ki,kio->...ko", z, w)

    out_real, out_imaginary = torch.zeros_like(real), torch.zeros_like(imaginary)
    out_real[...] = product(real, weight[..., 0]) - product(imaginary, weight[..., 1]) + bias[..., 0, 0]
    out_imaginary[...] = product(imaginary, weight[..., 0]) + product(real, weight[..., 1]) + bias[..., 0, 1]
    return out_real, out_imaginary


class LiteralGFN(nn.Module):
    """The same function as a GFN on the grid that it was made for, on its weights."""

    def __init__(self, gfn: GFN):
        super().__init__()
        self.gfn = gfn

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        """Mix tokens: B H W C -> B H W C."""
        z = torch.fft.rfft2(x, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.gfn.filter)  # B H M C
        return torch.fft.irfft2(z, s=x.shape[1:3], dim=(1, 2), norm="ortho")


class LiteralLongShort(LongShort):
    """The same function as a long-short attention whose weights it is given."""

    def overlapping(self, x: Tensor) -> Tensor:
        """The square of tokens around each tile: B H W C -> B T n C."""
        rows, columns = self.padding(x)
        side = self.window + 2 * self.margin
        x = pad(x.permute(0, 3, 1, 2), (self.margin, self.margin + columns, self.margin, self.margin + rows))
        return unfold(x, side, stride=self.window).unflatten(1, (-1, side**2)).permute(0, 3, 2, 1)
