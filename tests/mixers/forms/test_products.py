"""The transform pair as matrix products, the rule by which it runs, what the other form keeps for backward."""

import pytest
import torch

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.forms.products import dft, inverse_dft
from afno_repro.mixers.forms.rule import prefers_planes, prefers_products
from afno_repro.mixers.spectral import all_modes, irfft2, kept_modes, rfft2
from benchmarks.mixers import saved_units

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (7, 6), (1, 4), (3, 1), (2, 2)])
@pytest.mark.parametrize("keep", [1.0, 0.6, 0.3])
def test_products_are_the_transforms(grid, keep):
    x, modes = torch.randn(2, *grid, 3, dtype=torch.float64), kept_modes(grid, keep)
    z = rfft2(x.permute(0, 3, 1, 2), modes)
    products = dft(x, modes)
    torch.testing.assert_close(torch.complex(products[:, 0], products[:, 1]), z.permute(0, 2, 3, 1))
    other = torch.randn_like(z)  # not Hermitian, as after a nonlinearity
    parts = torch.view_as_real(other).permute(0, 4, 2, 3, 1).contiguous()
    torch.testing.assert_close(inverse_dft(parts, modes, grid), irfft2(other, modes, grid).permute(0, 2, 3, 1))


def test_matrices_made_without_gradients_serve_a_training():
    with torch.inference_mode():
        dft(torch.randn(1, 9, 9, 2), all_modes((9, 9)))
    x = torch.randn(1, 9, 9, 2, requires_grad=True)
    dft(x, all_modes((9, 9))).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("side", "keep", "products"),
    [(8, 1.0, True), (56, 1.0, False), (56, 0.5, True), (56, 32 / 56, True), (256, 1.0, False)],
)
def test_small_grids_and_few_modes_go_by_products_and_only_on_a_cpu(side, keep, products):
    modes = kept_modes((side, side), keep)
    assert prefers_products(torch.empty(1, side, side, 1), modes) == products
    assert not prefers_products(torch.empty(1, side, side, 1, device="meta"), modes)


def test_wide_blocks_go_by_planes_and_only_on_a_cpu():
    x = torch.empty(1, 56, 56, 1)
    assert [prefers_planes(x, width) for width in (96, 208, 750)] == [False, False, True]
    assert not prefers_planes(x.to("meta"), 750)


@pytest.mark.parametrize(("side", "dim", "blocks"), [(56, 24, 4), (64, 10, 1), (128, 4, 2), (56, 400, 1)])
def test_transforms_keep_at_most_two_and_a_half_inputs_for_the_backward_pass(side, dim, blocks):
    mixer = AFNO(dim, (side, side), blocks, 0.01, 1.0, "identity", 0.02)
    assert saved_units(mixer, torch.randn(1, side, side, dim)) <= 2.5
