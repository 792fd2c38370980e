"""Derivatives beyond the first gradient: of every mixer and every form of AFNO, against differences and one by one."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from afno_repro.mixers import AFNO, MIXERS
from tests.mixers.forms.chosen import FORMS, as_on_a_gpu, use
from tests.mixers.test_contract import OPTIONS

MIXED = [*((name, "") for name in sorted(MIXERS) if name != "afno"), ("gfn", "gpu")]
MIXED += [("fno", "gpu-tf32"), ("afno_static", "gpu-tf32")]


@pytest.fixture(params=[*MIXED, *(("afno", form) for form in FORMS)], ids=lambda param: "-".join(filter(None, param)))
def mixer(request, monkeypatch):
    """A mixer in float64 for 4 channels, on a grid that its options and its filter do not fit exactly."""
    name, form = request.param
    use(form, monkeypatch)
    torch.manual_seed(0)
    return MIXERS[name](4, (4, 4), **OPTIONS[name]).double()


def tokens(*shape):
    torch.manual_seed(1)
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_second_derivatives_are_those_of_differences(mixer, grid):
    x = tokens(2, *grid, 4).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x, *weights: mixer(x), (x, *mixer.parameters()), atol=1e-4, fast_mode=True
    )


def test_a_product_with_the_hessian_is_the_difference_of_gradients(mixer):
    x, step, eps = tokens(2, 4, 5, 4), tokens(1, 4, 5, 4), 1e-5

    def gradient(x, create_graph=False):
        x = x.detach().requires_grad_()
        return x, *torch.autograd.grad(mixer(x).pow(3).sum(), inputs=x, create_graph=create_graph)

    x, first = gradient(x, create_graph=True)
    (product,) = torch.autograd.grad((first * step).sum(), inputs=x)
    expected = (gradient(x + eps * step)[1] - gradient(x - eps * step)[1]) / (2 * eps)
    torch.testing.assert_close(product, expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_the_same_with_a_graph_of_their_own(mixer):
    x = tokens(2, 3, 5, 4).requires_grad_()
    inputs = [x, *mixer.parameters()]
    once = torch.autograd.grad(mixer(x).pow(2).sum(), inputs)
    again = torch.autograd.grad(mixer(x).pow(2).sum(), inputs, create_graph=True)
    torch.testing.assert_close(again, once)


def test_third_derivatives_are_those_of_differences(mixer):
    if any(isinstance(module, nn.LayerNorm) for module in mixer.modules()):
        pytest.skip("PyTorch's layer norm has right derivatives up to the second")
    x, step = tokens(1, 3, 4, 4).requires_grad_(), tokens(1, 3, 4, 4)

    def along(f):
        return lambda x: (torch.autograd.grad(f(x), x, create_graph=True)[0] * step).sum()

    def value(x):
        return mixer(x).pow(4).sum()

    third, second, eps = along(along(along(value)))(x), along(along(value)), 1e-4
    expected = (second(x + eps * step) - second(x - eps * step)) / (2 * eps)
    torch.testing.assert_close(third, expected, atol=1e-4, rtol=1e-4)


def test_gradients_of_every_item_are_those_of_one_after_the_other(mixer):
    x = tokens(3, 4, 5, 4)
    weights = dict(mixer.named_parameters())

    def loss(weights, item):
        return functional_call(mixer, weights, (item[None],)).square().sum()

    found = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(weights, x)
    for i, item in enumerate(x):
        item = item.clone().requires_grad_()
        mixer.zero_grad()
        mixer(item[None]).square().sum().backward()
        torch.testing.assert_close(found[1][i], item.grad)
        for key, weight in mixer.named_parameters():
            torch.testing.assert_close(found[0][key][i], weight.grad)


def test_derivatives_forward_are_those_of_differences(mixer):
    x, step, eps = tokens(2, 4, 5, 4), tokens(1, 4, 5, 4).expand(2, -1, -1, -1), 1e-6
    expected = (mixer(x + eps * step) - mixer(x - eps * step)) / (2 * eps)
    y, forward = jvp(mixer, (x,), (step,))
    torch.testing.assert_close(y, mixer(x))
    torch.testing.assert_close(forward, expected, atol=1e-6, rtol=1e-6)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(mixer(forward_ad.make_dual(x, step.clone())))
        torch.testing.assert_close(dual.tangent, forward)


def test_transforms_nest(mixer):
    x, step = tokens(1, 3, 4, 4), tokens(1, 3, 4, 4)
    _, product = jvp(grad(lambda x: mixer(x).pow(3).sum()), (x,), (step,))
    y = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(mixer(y).pow(3).sum(), y, create_graph=True)
    torch.testing.assert_close(product, torch.autograd.grad(first, y, step)[0])
    with torch.no_grad():
        torch.testing.assert_close(vmap(mixer)(x[None]), mixer(x)[None])


@pytest.mark.parametrize("grid", [(32, 32), (31, 31)])
def test_the_form_that_a_grid_gets_has_second_derivatives(grid):
    torch.manual_seed(0)
    mixer = AFNO(4, grid, 1, 0.0, 1.0, "identity", 0.3).double()
    x, step, eps = tokens(1, *grid, 4).requires_grad_(), tokens(1, *grid, 4), 1e-7

    def gradient(x, **options):
        return torch.autograd.grad(mixer(x).square().sum(), inputs=x, **options)[0]

    (product,) = torch.autograd.grad((gradient(x, create_graph=True) * step).sum(), inputs=x)
    expected = (gradient(x + eps * step) - gradient(x - eps * step)) / (2 * eps)
    assert (product * step).sum().item() == pytest.approx((expected * step).sum().item(), rel=1e-3)


@pytest.mark.parametrize("name", ["gfn", "fno", "afno_static", "afno"])
def test_as_on_another_device_all_derivatives_are_the_same(name, monkeypatch):
    use("transforms", monkeypatch)
    torch.manual_seed(0)
    mixer, x, step = MIXERS[name](4, (4, 4), **OPTIONS[name]).double(), tokens(2, 4, 4, 4), tokens(1, 4, 4, 4)

    def derivatives():
        y = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(mixer(y).pow(3).sum(), y, create_graph=True)
        each = vmap(grad(lambda item: mixer(item[None]).pow(3).sum()))(x)
        forward = jvp(mixer, (x[:1],), (step,))[1]
        return first.detach(), torch.autograd.grad((first * step).sum(), y)[0], each, forward.detach()

    expected = derivatives()
    as_on_a_gpu(monkeypatch)
    torch.testing.assert_close(derivatives(), expected)
