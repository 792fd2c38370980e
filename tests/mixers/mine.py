"""Mixers as someone else may write them: a sound one, and one that breaks each promise."""

import torch
from torch import Tensor, nn


class Sound(nn.Module):
    """A linear map of the tokens, and of their mean."""

    def __init__(self, dim: int, grid: tuple[int, int], bias: bool):
        super().__init__()
        self.project = nn.Linear(dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x + x.mean((1, 2), keepdim=True))


class OtherShape(Sound):
    def forward(self, x):
        return super().forward(x).flatten(1, 2)


class OtherPrecision(Sound):
    def forward(self, x):
        return super().forward(x).double()


class UnusedWeight(Sound):
    def __init__(self, dim: int, grid: tuple[int, int], bias: bool):
        super().__init__(dim, grid, bias)
        self.forgotten = nn.Parameter(torch.zeros(dim))


class NotFinite(Sound):
    def forward(self, x):
        return super().forward(x) / (x.abs() * 0)


class InPlace(Sound):
    def forward(self, x):
        with torch.no_grad():
            x.data.mul_(2)
        return super().forward(x)


class Random(Sound):
    def forward(self, x):
        return super().forward(x) + torch.rand_like(x)


class Unseeded(Sound):
    def __init__(self, dim: int, grid: tuple[int, int], bias: bool):
        super().__init__(dim, grid, bias)
        nn.init.normal_(self.project.weight, generator=torch.Generator().manual_seed(torch.seed() % 2**31))


class AcrossImages(Sound):
    def forward(self, x):
        return super().forward(x) + x.mean(0, keepdim=True)


class SharedByCopies(Sound):
    def __deepcopy__(self, memo):
        return self


class HiddenState(Sound):
    def __init__(self, dim: int, grid: tuple[int, int], bias: bool):
        super().__init__(dim, grid, bias)
        self.scale = torch.rand(())

    def forward(self, x):
        return super().forward(x) * self.scale


class NoHalf(Sound):
    def forward(self, x):
        y = super().forward(x)
        if y.dtype == torch.bfloat16:
            raise TypeError("bf16 is not supported")
        return y


class LooksAtValues(Sound):
    def forward(self, x):
        return super().forward(x) * (2 if x.sum().item() > 0 else 1)


class OwnLimit(Sound):
    def __init__(self, dim: int, grid: tuple[int, int], bias: bool):
        from afno_repro.errors import require

        super().__init__(dim, grid, bias)
        require((grid[0] >= 40, "grid", f"own_limit: needs 40 rows, has {grid[0]}"))


class Misspelt(Sound):
    def forward(self, x):
        return super().forward(self.projekt(x))


class WrongWidth(Sound):
    def __init__(self, dim: int, grid: tuple[int, int], bias: bool):
        super().__init__(dim + 1, grid, bias)


class NoForward(nn.Module):
    def __init__(self, dim: int, grid: tuple[int, int]):
        super().__init__()


class Untyped(nn.Module):
    def __init__(self, dim: int, grid: tuple[int, int], bias):
        super().__init__()


class Keywords(nn.Module):
    def __init__(self, dim: int, grid: tuple[int, int], **options: int):
        super().__init__()


class OtherOrder(nn.Module):
    def __init__(self, grid: tuple[int, int], dim: int):
        super().__init__()


class NoMixer:
    """No module at all."""
