import pytest
import torch

from afno_repro.errors import ConfigError
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
