import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from afno_repro.errors import ConfigError
from afno_repro.mixers import attention
from afno_repro.mixers.self_attention import SelfAttention

pytestmark = pytest.mark.fast


def test_self_attention_is_the_double_sum_of_equation_2():
    dim, heads = 6, 2
    mixer = SelfAttention(dim, (2, 3), heads).double()
    x = torch.randn(1, 2, 3, dim, dtype=torch.float64)
    tokens, size = x[0].flatten(0, 1), dim // heads
    q, k, v = (tokens @ w.T + b for w, b in zip(mixer.qkv.weight.chunk(3), mixer.qkv.bias.chunk(3), strict=True))
    mixed = torch.zeros_like(tokens)
    for s in range(len(tokens)):
        for i in range(heads):
            part = slice(i * size, (i + 1) * size)
            scores = torch.stack([(q[s, part] @ k[t, part] / size**0.5).exp() for t in range(len(tokens))])
            for t in range(len(tokens)):
                mixed[s, part] += scores[t] / scores.sum() * v[t, part]
    expected = mixed @ mixer.project.weight.T + mixer.project.bias
    torch.testing.assert_close(mixer(x)[0].flatten(0, 1), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="num_heads"):
        SelfAttention(10, (2, 2), 3)


class Widths(TorchFunctionMode):
    """Inside, notes how wide the heads are that torch's own attention is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is scaled_dot_product_attention:
            self.seen += [each.shape[-1] for each in args[:3]]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("dim", "wide"), [(27, 32), (64, 64), (4, 8)])
def test_heads_of_any_width_are_given_to_a_gpu_as_it_has_them_fused(dim, wide):
    with FakeTensorMode(), Widths() as widths:
        q = torch.empty(1, 2, 5, dim, device="cuda")
        assert attention.fused_attention(q, q, q).shape == q.shape
    assert widths.seen == [wide] * 3


@pytest.mark.parametrize("dim", [27, 64])
def test_channels_of_zeros_change_no_attention(dim):
    class OnGPU(torch.Tensor):
        is_cuda = True

    q, k, v = torch.randn(3, 1, 2, 5, dim, dtype=torch.float64).unbind()
    with Widths() as widths:
        y = attention.fused_attention(q.as_subclass(OnGPU), k, v)
    assert widths.seen == [-(-dim // 8) * 8] * 3
    torch.testing.assert_close(y.as_subclass(torch.Tensor), attention.plain_attention(q, k, v))
