"""The fused block MLP against the same layers in float64.

It runs in Triton's interpreter, in a process of its own, and on a GPU where there is one.
Triton asks once, at import, whether to interpret; other tests of a process must not find that it did. Biases are chosen
so that no value is close to a kink of relu or of the shrinkage, where rounding turns a whole gradient on or off.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from afno_repro.config import ModelConfig, Part
from afno_repro.mixers import AFNO, afno, afno_fused
from afno_repro.mixers.own import own_mixer
from afno_repro.mixers.spectral import block_matmul, on_parts
from afno_repro.models import check_own_mixer
from afno_repro.precision import set_precision
from afno_repro.training.watch import alive_fractions

pytest.importorskip("triton")
ROOT = Path(__file__).parents[3]
TOLERANCES = {
    "cpu": {"float32": 1e-5, "bf16": 1e-2},
    "cuda": {"float32": 2e-3, "bf16": 2e-2},
}  # the interpreter's tf32 is float32
CASES = [  # B, K, D, N, threshold, precision
    (2, 2, 4, 7, 0.0, "float32"),
    (1, 2, 16, 70, 0.5, "float32"),
    (2, 1, 24, 65, 0.5, "bf16"),
    (3, 1, 40, 33, 0.5, "float32"),
    (1, 1, 72, 20, 0.0, "float32"),
    (1, 1, 144, 19, 0.5, "float32"),
    (1, 1, 130, 18, 0.5, "bf16"),
]
GPU_CASES = [
    (2, 4, width, 203, threshold, precision)
    for width in (4, 24, 64, 96, 144, 750)
    for threshold in (0.0, 0.5)
    for precision in ("float32", "bf16")
]
NAMES = ["s", "z", "w1", "b1", "w2", "b2"]


def reference(z, w1, b1, w2, b2, threshold):
    """The layers one by one, and what comes before relu and before the shrinkage."""
    before = block_matmul(z, w1) + torch.view_as_complex(b1)
    out = block_matmul(on_parts(torch.relu, before), w2) + torch.view_as_complex(b2)
    return on_parts(torch.nn.Softshrink(threshold), out), before, out


def far_from(kink, values):
    """A bias (K D 1 2) for each channel's values (B K D N).

    It moves the widest gap in their middle half to `kink` (D 1).
    """
    values = torch.view_as_real(values).permute(1, 2, 4, 0, 3).flatten(3).sort().values  # K D 2 BN
    middle = values[..., values.shape[-1] // 4 : -(values.shape[-1] // 4)]
    gap = middle.diff().argmax(-1, keepdim=True)
    return (kink - (middle.gather(-1, gap) + middle.gather(-1, gap + 1))[..., 0] / 2)[:, :, None]


def inputs(batch, blocks, width, modes, threshold):
    """z and the weights in float64, nothing near a kink.

    Even channels pass the positive kink of the shrinkage, odd ones the negative.
    """
    torch.manual_seed(0)
    z = torch.randn(batch, blocks, width, modes, dtype=torch.complex128)
    w1, w2 = (scale * torch.randn(blocks, width, width, 2, dtype=torch.float64) / width**0.5 for scale in (1.0, 0.2))
    b1 = b2 = torch.zeros(blocks, width, 1, 2, dtype=torch.float64)
    b1 = far_from(0.0, reference(z, w1, b1, w2, b2, threshold)[1])
    signs = 1.0 - 2.0 * (torch.arange(width, dtype=torch.float64)[:, None] % 2)
    return z, w1, b1, w2, far_from(threshold * signs, reference(z, w1, b1, w2, b2, threshold)[2])


def errors(case, device):
    """Relative L2 errors of the output and of all gradients; the gradient that comes in is conjugated and strided."""
    from afno_repro.mixers.forms.kernel import fused_block_mlp

    *sizes, threshold, precision = case
    exact = [value.requires_grad_() for value in inputs(*sizes, threshold)]
    values = [
        value.detach().to(device, torch.complex64 if value.is_complex() else torch.float32).requires_grad_()
        for value in exact
    ]
    expected, found = reference(*exact, threshold)[0], fused_block_mlp(*values, threshold, precision)
    weight = torch.randn(expected.mT.shape, dtype=torch.complex128)
    expected = [expected, *torch.autograd.grad((expected.mT.conj() * weight).real.sum(), exact)]
    found = [found, *torch.autograd.grad((found.mT.conj() * weight.to(found)).real.sum(), values)]
    return {
        name: ((a.detach().cpu() - b).norm() / b.norm()).item()
        for name, a, b in zip(NAMES, found, expected, strict=True)
    }


def repair_the_interpreter():
    """In products Triton's interpreter takes bf16 for the integers it is stored in; it cuts off where a GPU rounds."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast = InterpreterBuilder.cast_impl

    def rounding_cast(self, source, kind):
        if (source.dtype.scalar, kind.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, kind)
        return TensorHandle(torch.tensor(source.data).bfloat16().view(torch.uint16).numpy(), tl.bfloat16)

    def dot(self, a, b, c, *precision):
        a, b = (cast(self, x, tl.float32).data if x.dtype.scalar == tl.bfloat16 else x.data for x in (a, b))
        return TensorHandle(np.matmul(a, b) + c.data, tl.float32)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot = rounding_cast, dot


def what_is_not_a_number_stays_so():
    """Whether the modes that hold a number that is none, and only they, come out as such; without gradients."""
    from afno_repro.mixers.forms.kernel import fused_block_mlp

    found = []
    for width in (16, 130):
        z, *weights = inputs(1, 1, width, 9, 0.5)
        z[..., 3, 5] = torch.nan
        s = fused_block_mlp(z.to(torch.complex64), *(weight.float() for weight in weights), 0.5, "float32")
        found.append((s.isnan() == (torch.arange(9) == 5)).all().item())
    return all(found)


def refuses_second_derivatives():
    """Whether every way to a second derivative raises, the one that asks for a single input's included."""
    from afno_repro.mixers.forms.kernel import fused_block_mlp

    z, *weights = (
        value.to(torch.complex64 if value.is_complex() else torch.float32) for value in inputs(1, 1, 4, 9, 0.5)
    )
    x = torch.view_as_real(z).clone().requires_grad_()

    def loss(x):
        y = torch.view_as_complex(x)
        return torch.view_as_real(fused_block_mlp(y, *weights, 0.5, "float32") + y).square().sum()

    tries = [
        lambda: torch.autograd.grad(loss(x), inputs=x, create_graph=True),
        lambda: torch.autograd.grad(loss(x), x, create_graph=True),
        lambda: loss(x).backward(create_graph=True),
        lambda: torch.func.grad(loss)(x.detach()),
        lambda: torch.func.jvp(loss, (x.detach(),), (x.detach(),)),
    ]
    raised = 0
    for each in tries:
        try:
            each()
        except RuntimeError:
            raised += 1
    return raised == len(tries)


def of_a_mixer(device):
    """Relative L2 errors of a mixer that takes the kernel against AFNO: of outputs and, the largest, of gradients."""
    if device == "cpu":
        afno_fused.prefers_real = lambda x: True
    found = {}
    for grid, keep in (((8, 8), 1.0), ((5, 7), 1.0), ((16, 18), 0.5)):
        torch.manual_seed(0)
        options = {"num_blocks": 2, "sparsity_threshold": 0.0, "keep": keep, "bias": "conv", "init_std": 0.5}
        plain, fused = AFNO(8, grid, **options), afno_fused.FusedAFNO(8, grid, **options).to(device)
        fused.load_state_dict(plain.state_dict())
        x, weight = torch.randn(2, 2, *grid, 8)
        made = []
        for mixer, tokens in ((plain.double(), x.double()), (fused, x.to(device))):
            tokens.requires_grad_()
            y = mixer(tokens)
            made.append([y, *torch.autograd.grad((y * weight.to(y)).sum(), [tokens, *mixer.parameters()])])
        output, *gradients = (((b.detach().cpu() - a).norm() / a.norm()).item() for a, b in zip(*made, strict=True))
        found[str((grid, keep))] = output, max(gradients)
    return found


@pytest.fixture(scope="module")
def interpreted():
    """What a process that interprets the kernels found."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.mixers.forms.test_kernel"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("index", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_output_and_gradients_are_those_of_the_layers_one_by_one(interpreted, index):
    found, tolerance = interpreted["errors"][index], TOLERANCES["cpu"][CASES[index][-1]]
    assert {name: error for name, error in found.items() if not error < tolerance} == {}


def test_a_number_that_is_none_is_not_hidden(interpreted):
    assert interpreted["stays"]


def test_it_says_that_it_has_no_second_derivatives(interpreted):
    assert interpreted["refuses"]


def test_a_mixer_that_takes_it_computes_what_afno_does(interpreted):
    assert {name: error for name, error in interpreted["mixer"].items() if not max(error) < 1e-5} == {}


@pytest.mark.fast
def test_a_mixer_that_would_take_it_is_afno_itself_on_a_cpu():
    options = {"num_blocks": 2, "sparsity_threshold": 0.01, "keep": 1.0, "bias": "conv", "init_std": 0.5}
    name = "afno_repro.mixers.afno_fused:FusedAFNO"
    config = ModelConfig(
        Part("vit", {"patch_size": 4, "embed_dim": 8, "depth": 1, "mlp_ratio": 2, "skips": 2}),
        Part(name, options),
        Part("inpainting", {}),
    )
    check_own_mixer(config, 32)
    torch.manual_seed(0)
    fused = own_mixer(name)(8, (8, 8), **options)
    plain, x = AFNO(8, (8, 8), **options), torch.randn(1, 8, 8, 8)
    plain.load_state_dict(fused.state_dict())
    assert torch.equal(fused(x), plain(x))


@pytest.mark.fast
def test_a_watched_pass_runs_as_afno_s_own(monkeypatch):
    options = {"num_blocks": 2, "sparsity_threshold": 0.01, "keep": 1.0, "bias": "none", "init_std": 0.5}
    fused, x = afno_fused.FusedAFNO(8, (32, 32), **options), torch.randn(1, 32, 32, 8)
    monkeypatch.setattr(afno, "prefers_products", lambda x, modes: False)
    monkeypatch.setattr(afno_fused, "prefers_real", lambda x: True)
    monkeypatch.setattr(afno_fused, "by_kernel", lambda mixer, x, *_: torch.zeros_like(x))
    assert torch.equal(fused(x), fused(torch.zeros_like(x)))
    with alive_fractions(fused, watch=True) as alive:
        assert not torch.equal(fused(x), fused(torch.zeros_like(x)))
    assert 0 < alive["alive_1"] <= 1


def test_a_mixer_that_would_take_it_needs_no_triton_on_a_cpu():
    script = "import sys; sys.modules['triton'] = None; import afno_repro.mixers.afno_fused"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_mixer_that_takes_it_on_a_gpu_computes_what_afno_does():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        set_precision("tf32", torch.device("cuda"))
        outputs, gradients = zip(*of_a_mixer("cuda").values(), strict=True)
        assert max(outputs) < 1e-2
        assert max(gradients) < 1e-1  # rounding turns some of a ReLU's on or off
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", GPU_CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_gpu_computes_the_same_twice(case):
    found = errors(case, "cuda")
    assert {name: error for name, error in found.items() if not error < TOLERANCES["cuda"][case[-1]]} == {}
    assert errors(case, "cuda") == found


if __name__ == "__main__":
    repair_the_interpreter()
    found = {"errors": [errors(case, "cpu") for case in CASES], "stays": what_is_not_a_number_stays_so()}
    print(json.dumps({**found, "refuses": refuses_second_derivatives(), "mixer": of_a_mixer("cpu")}))
