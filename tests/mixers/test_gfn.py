import copy

import pytest
import torch

from afno_repro.mixers.gfn import GFN
from tests.mixers.forms.chosen import as_on_a_gpu

pytestmark = pytest.mark.fast


@pytest.fixture(params=["cpu", "gpu"], autouse=True)
def device(request, monkeypatch):
    """The layouts of both devices keep every promise."""
    if request.param == "gpu":
        as_on_a_gpu(monkeypatch)


@pytest.mark.parametrize("grid", [(4, 5), (6, 4), (3, 3)])
def test_gfn_is_a_circular_convolution(grid):
    (h, w), dim = grid, 3
    x, kernel = torch.randn(1, h, w, dim, dtype=torch.float64), torch.randn(h, w, dim, dtype=torch.float64)
    mixer = GFN(dim, grid=(h, w), init_std=0.02).double()
    mixer.filter.data = torch.view_as_real(torch.fft.rfft2(kernel, dim=(0, 1)))
    expected = sum(kernel[i, j] * x.roll((i, j), dims=(1, 2)) for i in range(h) for j in range(w))
    torch.testing.assert_close(mixer(x), expected)


def test_a_constant_filter_scales_on_any_grid():
    mixer = GFN(2, grid=(4, 4), init_std=0.02)
    mixer.filter.data = torch.tensor([0.5, 0.0]).expand(4, 3, 2, 2).clone()
    x = torch.randn(1, 6, 10, 2)
    torch.testing.assert_close(mixer(x), 0.5 * x)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (4, 3), (1, 2)])
@pytest.mark.parametrize("made_for", [(4, 4), (3, 5)])
def test_gradients_are_those_of_the_function(grid, made_for):
    mixer, x = (
        GFN(2, made_for, init_std=0.02).double(),
        torch.randn(2, *grid, 2, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda x, weight: mixer(x), (x, mixer.filter))


@pytest.mark.parametrize("tokens", [(8, 8), (6, 10)], ids=["its grid", "another"])
def test_filter_and_its_gradient_lie_in_memory_as_a_cpus_spectra_do(tokens):
    """So that products run over neighbours in both: twice as slow otherwise, and no value shows it."""
    mixer = copy.deepcopy(GFN(12, (8, 8), init_std=0.02)).double()
    x = torch.randn(2, *tokens, 12, dtype=torch.float64)
    mixer(x).sum().backward()
    spectrum = torch.fft.rfft2(x, dim=(1, 2))
    kernel = torch.view_as_complex(mixer.filter_for(*spectrum.shape[1:3], x.dtype))
    assert kernel.stride() == spectrum[0].stride()
    assert mixer.filter.grad.stride() == mixer.filter.stride()


def test_on_a_gpu_more_images_take_no_more_products(monkeypatch):
    """On small grids a GPU waits for their launches."""
    as_on_a_gpu(monkeypatch)
    mixer, counts = GFN(4, (4, 4), init_std=0.02), list[int]()
    for images in (2, 16):
        with torch.profiler.profile() as profiled:
            mixer(torch.randn(images, 4, 4, 4, requires_grad=True)).sum().backward()
        counts.append(sum(event.count for event in profiled.key_averages() if "mul" in event.key))
    assert counts[0] == counts[1] > 0
