"""The transform pair: one inverse for all devices, and the modes that a fraction keeps."""

import pytest
import torch

from afno_repro.mixers.spectral import all_modes, in_one, in_two, irfft2, kept_modes, rfft2

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (6, 5), (7, 6), (1, 4), (3, 1), (2, 2), (1, 1), (4, 2), (16, 32)])
@pytest.mark.parametrize("dim", [-2, -3])
def test_one_inverse_transform_of_a_spectrum_made_hermitian_is_the_two(grid, dim):
    shape = (2, 3, grid[0], grid[1] // 2 + 1) if dim == -2 else (2, grid[0], grid[1] // 2 + 1, 3)
    z = torch.randn(shape, dtype=torch.complex128)
    before = z.clone()
    torch.testing.assert_close(in_one(z, grid, dim), in_two(z, grid, dim), atol=1e-14, rtol=1e-13)
    assert torch.equal(z, before)


@pytest.mark.parametrize("grid", [(8, 8), (7, 9)])
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_with_few_columns_too(grid, columns):
    z = torch.randn(2, 3, grid[0], columns, dtype=torch.complex128)
    torch.testing.assert_close(in_one(z, grid, -2), in_two(z, grid, -2), atol=1e-14, rtol=1e-13)


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (1, 4)])
def test_what_one_inverse_transform_reads_is_hermitian(grid, monkeypatch):
    seen = []
    irfft2 = torch.fft.irfft2
    monkeypatch.setattr(torch.fft, "irfft2", lambda z, **options: seen.append(z) or irfft2(z, **options))
    in_one(torch.randn(2, grid[0], grid[1] // 2 + 1, dtype=torch.complex128), grid, -2)
    own = [0] if grid[1] % 2 else [0, grid[1] // 2]
    for column in own:
        z = seen[0][..., column]
        for row in range(grid[0]):
            torch.testing.assert_close(z[:, row], z[:, -row % grid[0]].conj())


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (4, 3)])
def test_both_inverses_have_the_same_gradient(grid):
    z = torch.randn(1, 2, grid[0], grid[1] // 2 + 1, dtype=torch.complex128, requires_grad=True)
    step = torch.randn(1, 2, *grid, dtype=torch.float64)
    one, two = (torch.autograd.grad(inverse(z, grid, -2), z, step)[0] for inverse in (in_one, in_two))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (6, 5)])
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_along_other_axes_the_pair_is_the_same(grid, keep):
    x, modes = torch.randn(2, *grid, 3, dtype=torch.float64), kept_modes(grid, keep)
    z = rfft2(x, modes, dim=-3)
    torch.testing.assert_close(z.permute(0, 3, 1, 2), rfft2(x.permute(0, 3, 1, 2), modes))
    other = torch.randn_like(z)
    expected = irfft2(other.permute(0, 3, 1, 2), modes, grid).permute(0, 2, 3, 1)
    torch.testing.assert_close(irfft2(other, modes, grid, dim=-3), expected)


@pytest.mark.parametrize(
    ("keep", "size", "rows"),
    [(0.5, 14, 8), (0.5, 16, 8), (0.5, 10, 4), (0.5, 18, 8), (0.25, 14, 4), (0.75, 14, 10), (0.01, 14, 2), (0.9, 7, 6)],
)
def test_a_fraction_keeps_an_even_number_of_rows_half_to_even(keep, size, rows):
    """The nearest multiple of two rows to keep times size; half-way between two, the multiple of four; at least two."""
    low, high, columns = kept_modes((size, size), keep)
    assert low == high
    assert low + high == rows
    assert columns == round(keep * size / 2) + 1
    assert all_modes((size, size)).columns >= columns
