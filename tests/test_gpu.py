"""A device beside the same in float64 on a CPU: every mixer, forward and backward, and the inverse real FFT.

On a GPU where there is one; on the CPU itself at one small grid, so that what a GPU is held to holds somewhere.
Gradients are compared in float64 and float32 alone: rounding turns some of a ReLU's on or off.
"""

import copy
from functools import partial

import pytest
import torch

from afno_repro.mixers import MIXERS
from afno_repro.mixers.spectral import all_modes, irfft2
from afno_repro.precision import autocast, set_precision
from tests.mixers.test_contract import DIM, OPTIONS

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
FORWARD = {"float64": 1e-10, "float32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}
BACKWARD = {"float64": 1e-9, "float32": 1e-3}
GRIDS = [(7, 9), (14, 14), (28, 28), (56, 56), (64, 64), (128, 128), (256, 256)]
MOST_SCORED = 64  # rows of a grid on which attention in float64 takes a CPU seconds, and not minutes
CASES = [
    *[("cpu", (7, 9), name) for name in sorted(MIXERS)],
    *[
        pytest.param("cuda", grid, name, marks=GPU.marks)
        for grid in GRIDS
        for name in sorted(MIXERS)
        if grid[0] <= MOST_SCORED or "self_attention" not in name
    ],
]


@pytest.fixture(autouse=True)
def _flags():
    """What other tests find is what they left."""
    yield
    set_precision("float32", torch.device("cpu"))


def relative(found, expected):
    return float((found.detach().cpu().double() - expected.detach()).norm() / expected.detach().norm())


def outputs(mixer, x, weight):
    """The output, and the gradients of input and weights in one row: some are zero but for rounding."""
    x = x.requires_grad_()
    y = mixer(x)
    gradients = torch.autograd.grad((y * weight.to(y)).sum(), [x, *mixer.parameters()])
    return y, torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize(("device", "grid", "name"), CASES)
def test_a_mixer_is_that_of_float64_on_a_cpu(device, grid, name):
    torch.manual_seed(0)
    exact = MIXERS[name](DIM, grid, **OPTIONS[name]).double()
    x, weight = (torch.randn(2, *grid, DIM, dtype=torch.float64) for _ in range(2))
    expected = outputs(exact, x.clone(), weight)
    wrong = {}
    for precision, tolerance in FORWARD.items():
        kind = torch.float64 if precision == "float64" else torch.float32
        set_precision("float32" if precision == "float64" else precision, torch.device(device))
        with autocast(torch.device(device), precision):
            found = outputs(copy.deepcopy(exact).to(device, kind), x.to(device, kind, copy=True), weight)
        forward, backward = map(relative, found, expected)
        if not forward < tolerance or not backward < BACKWARD.get(precision, float("inf")):
            wrong[precision] = forward, backward
    assert wrong == {}


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_the_inverse_of_a_spectrum_that_is_not_hermitian_is_the_cpus(device):
    torch.manual_seed(0)
    wrong = {}
    for width in (*range(2, 65), 128, 256):
        modes = all_modes((6, width))
        inverse = partial(irfft2, modes=modes, grid=(6, width))
        z = torch.randn(2, 3, 6, modes.columns, dtype=torch.complex128)
        errors = {
            str(kind): relative(inverse(z.to(device, kind)), inverse(z)) / tolerance
            for kind, tolerance in ((torch.complex128, 1e-12), (torch.complex64, 1e-5))
        }
        if not max(errors.values()) < 1:
            wrong[width] = errors
    assert wrong == {}
