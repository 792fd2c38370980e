"""What runs on a GPU, run on a CPU: which products, which transforms; that it computes the same other tests show."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.afno_static import AFNOStatic
from afno_repro.mixers.fno import FNO
from afno_repro.mixers.forms.rule import prefers_planes, prefers_products, prefers_real
from afno_repro.mixers.gfn import GFN
from afno_repro.mixers.spectral import all_modes
from afno_repro.precision import autocast, set_precision
from tests.mixers.forms.chosen import use

pytestmark = pytest.mark.fast
aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)
TRANSFORMS = (aten._fft_r2c, aten._fft_c2c, aten._fft_c2r)


class Operators(TorchDispatchMode):
    """The operators that ran, each with what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append((function.overloadpacket, args))
        return function(*args, **(kwargs or {}))

    def of(self, kinds):
        return [args for kind, args in self.seen if kind in kinds]


def step(mixer, grid):
    """The operators of a forward and a backward pass."""
    x = torch.randn(2, *grid, 8, requires_grad=True)
    with Operators() as operators:
        mixer(x).square().sum().backward()
    return operators


def of_complex(products):
    return [args for args in products if any(each.is_complex() for each in args if isinstance(each, torch.Tensor))]


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_under_tf32_a_gpu_multiplies_real_matrices_one_product_a_layer(keep, monkeypatch):
    use("gpu-tf32", monkeypatch)
    products = step(AFNO(8, (8, 8), 2, 0.01, keep, "identity", 0.5), (8, 8)).of(PRODUCTS)
    assert len(products) == 2 + 4
    assert not of_complex(products)


@pytest.mark.parametrize("form", ["gpu-tf32", "gpu", "transforms", "planes"])
def test_gradients_asked_for_under_autocast_are_those_of_the_precision_of_the_layer(form, monkeypatch):
    use(form, monkeypatch)
    torch.manual_seed(0)
    mixer, x = AFNO(8, (8, 8), 2, 0.01, 1.0, "identity", 0.5), torch.randn(2, 8, 8, 8, requires_grad=True)
    y = mixer(x).square().sum()
    expected = torch.autograd.grad(y, [x, *mixer.parameters()], retain_graph=True)
    with autocast(x.device, "bf16"):
        found = torch.autograd.grad(y, [x, *mixer.parameters()])
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    "mixer", [FNO(8, (8, 8), [2, 3], 0.5), AFNOStatic(8, (8, 8), 2, 0.01, [2, 3], "identity", 0.5)]
)
def test_under_tf32_a_matrix_for_every_mode_is_a_real_one_too(mixer, monkeypatch):
    use("gpu-tf32", monkeypatch)
    products = step(mixer, (8, 8)).of(PRODUCTS)
    assert len(products) == 1 + 2
    assert not of_complex(products)


@pytest.mark.parametrize("form", ["gpu", "gpu-tf32"])
@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("grid", [(8, 8), (5, 7)])
def test_on_a_gpu_transforms_have_no_scale_and_run_over_the_last_axes(form, keep, grid, monkeypatch):
    use(form, monkeypatch)
    for mixer in (AFNO(8, grid, 2, 0.01, keep, "conv", 0.5), GFN(8, grid, 0.5)):
        for x, dims, scale, *_ in step(mixer, grid).of(TRANSFORMS):
            assert scale == 0
            assert x.is_contiguous() or keep < 1
            assert set(dims) <= {2, 3}


@pytest.mark.parametrize(("precision", "real"), [("float32", False), ("tf32", True), ("bf16", True)])
def test_the_rule_of_a_gpu_follows_the_precision(precision, real):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        set_precision(precision, torch.device("cuda"))
        with FakeTensorMode():
            x = torch.empty(1, 8, 8, 8, device="cuda")
        assert prefers_real(x) == real
        assert not prefers_planes(x, 750)
        assert not prefers_products(x, all_modes((8, 8)))
        assert not prefers_real(torch.empty(1, 8, 8, 8))
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
