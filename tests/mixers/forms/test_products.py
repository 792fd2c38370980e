"""The transform pair as matrix products, the rule by which it runs, what the other forms keep for backward."""

import copy

import pytest
import torch
from torch._subclasses import FakeTensorMode

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.forms import products
from afno_repro.mixers.forms.products import DFT, Matrices
from afno_repro.mixers.forms.rule import prefers_planes, prefers_products
from afno_repro.mixers.spectral import all_modes, irfft2, kept_modes, rfft2
from benchmarks.mixers import saved_units
from tests.mixers.forms.chosen import use

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (7, 6), (1, 4), (3, 1), (2, 2)])
@pytest.mark.parametrize("keep", [1.0, 0.6, 0.3])
def test_products_are_the_transforms(grid, keep):
    x, modes = torch.randn(2, *grid, 3, dtype=torch.float64), kept_modes(grid, keep)
    z = rfft2(x.permute(0, 3, 1, 2), modes)
    dft = DFT(grid, modes).double()
    ours = dft(x, modes)
    torch.testing.assert_close(torch.complex(ours[:, 0], ours[:, 1]), z.permute(0, 2, 3, 1))
    other = torch.randn_like(z)  # not Hermitian, as after a nonlinearity
    parts = torch.view_as_real(other).permute(0, 4, 2, 3, 1).contiguous()
    torch.testing.assert_close(dft.inverse(parts, modes, grid), irfft2(other, modes, grid).permute(0, 2, 3, 1))


@pytest.mark.parametrize("grid", [(9, 9), (9, 7)])
def test_matrices_made_without_gradients_serve_a_training(grid):
    with torch.inference_mode():
        dft = DFT((9, 9), all_modes((9, 9)))
        dft(torch.randn(1, *grid, 2), all_modes(grid))
    x = torch.randn(1, *grid, 2, requires_grad=True)
    dft(x, all_modes(grid)).sum().backward()
    assert x.grad is not None


def made(dft):
    return Matrices(*(getattr(dft, name) for name in Matrices._fields))


def exact(dft, dtype=torch.float64):
    return products.matrices(dft.grid, dft.modes, dtype, torch.device("cpu"))


def test_the_matrices_of_the_networks_own_grid_are_made_once(monkeypatch):
    mixer, x = AFNO(4, (6, 8), 2, 0.01, 0.5, "identity", 0.02), torch.randn(2, 6, 8, 4)
    expected = mixer(x)
    monkeypatch.setattr(products, "matrices_of", None)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(torch.func.vmap(mixer)(x[None])[0], expected)
    torch.testing.assert_close(copy.deepcopy(mixer)(x), expected, rtol=0, atol=0)


def test_they_follow_a_network_into_every_precision_and_none_is_lost():
    dft = DFT((6, 8), all_modes((6, 8)))
    assert all(map(torch.equal, made(dft), exact(dft, torch.float32)))
    assert all(map(torch.equal, made(dft.double()), exact(dft)))
    assert all(map(torch.equal, made(dft.to(torch.bfloat16)), exact(dft, torch.float32)))
    assert all(map(torch.equal, made(dft.half().double()), exact(dft)))
    assert all(map(torch.equal, made(dft.to_empty(device="cpu")), exact(dft)))


def test_they_follow_a_network_to_every_device_and_are_no_weights():
    with torch.device("meta"):
        dft = DFT((6, 8), all_modes((6, 8)))
    assert {matrix.device.type for matrix in made(dft)} == {"meta"}
    assert [matrix.shape for matrix in made(dft)] == [matrix.shape for matrix in exact(dft)]
    with FakeTensorMode():
        assert {str(matrix.device) for matrix in made(DFT((6, 8), all_modes((6, 8))).to("cuda"))} == {"cuda:0"}
    assert dft.state_dict() == {}
    assert list(AFNO(4, (6, 8), 2, 0.01, 1.0, "none", 0.02).state_dict()) == ["w1", "b1", "w2", "b2"]


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


@pytest.mark.parametrize("form", ["transforms", "planes", "gpu", "gpu-tf32"])
@pytest.mark.parametrize(("side", "dim", "blocks"), [(56, 24, 4), (64, 10, 1), (128, 4, 2), (56, 400, 1)])
def test_transforms_keep_at_most_two_and_a_half_inputs_for_the_backward_pass(side, dim, blocks, form, monkeypatch):
    use(form, monkeypatch)
    mixer = AFNO(dim, (side, side), blocks, 0.01, 1.0, "identity", 0.02)
    assert saved_units(mixer, torch.randn(2, side, side, dim)) <= 2.5
