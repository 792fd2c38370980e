"""Mixers as they are usually written: what our forms are measured against, on the same weights.

AFNO: channels-last transforms, every complex product as four real einsums, a zero-filled buffer for each part of each
layer. GFN: channels-last transforms. Long-short: windows cut out by `unfold` of channels-first images, far
and near apart but for the softmax.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, pad, softshrink, unfold

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
    """The same function as a long-short attention whose weights it is given; what is far is projected as there."""

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        """Mix tokens: B H W C -> B H W C."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        k, v = self.norm_tokens(k), self.norm_tokens(v)
        far_k, far_v = (low.unsqueeze(2) for low in self.far(x, k, v))  # B h 1 R D
        near_k, near_v = (self.cut(low, self.num_heads, self.side, self.margin) for low in (k, v))  # B h T n D
        inside = self.cut(x.new_ones(1, *x.shape[1:3], 1), 1, self.side, self.margin)[0, 0, :, None, :, 0]  # T 1 n
        queries = self.cut(q, self.num_heads, self.window, 0) * near_k.shape[-1] ** -0.5  # B h T w^2 D
        near = (queries @ near_k.transpose(-1, -2)).masked_fill(inside == 0, float("-inf"))
        weights = torch.cat([queries @ far_k.transpose(-1, -2), near], dim=-1).softmax(dim=-1)
        far, near = weights.split([far_k.shape[-2], near_k.shape[-2]], dim=-1)
        y = (far @ far_v + near @ near_v).permute(0, 1, 4, 3, 2).flatten(1, 3)  # B h D w^2 T as B C w^2 T
        whole = [length + -length % self.window for length in x.shape[1:3]]
        y = fold(y, whole, self.window, stride=self.window)[:, :, : x.shape[1], : x.shape[2]]  # B C H W
        return self.project(y.permute(0, 2, 3, 1))

    def cut(self, x: Tensor, heads: int, side: int, margin: int) -> Tensor:
        """The squares of tokens around the tiles, zeros outside the grid: B H W C -> B h T side^2 D."""
        rows, columns = (margin + -length % self.window for length in x.shape[1:3])
        x = pad(x.permute(0, 3, 1, 2), (margin, columns, margin, rows))
        parts = unfold(x, side, stride=self.window)  # B C side^2 T
        return parts.unflatten(1, (heads, -1, side**2)).permute(0, 1, 4, 3, 2)
