import pytest
import torch
from torch.nn.functional import layer_norm

from afno_repro.errors import ConfigError
from afno_repro.mixers.efficient_self_attention import EfficientSelfAttention
from afno_repro.mixers.self_attention import SelfAttention


def literal(mixer, x):
    """Patches of R x R tokens become keys through one linear map; every query sees every key."""
    _, h, w, dim = x.shape
    size, heads = mixer.reduction, mixer.num_heads
    patches = [
        x[0, i : i + size, j : j + size].permute(2, 0, 1).flatten()
        for i in range(0, h - size + 1, size)
        for j in range(0, w - size + 1, size)
    ]
    reduced = torch.stack(patches) @ mixer.reduce.weight.flatten(1).T + mixer.reduce.bias
    reduced = layer_norm(reduced, (dim,), mixer.norm.weight, mixer.norm.bias)
    q = x[0].flatten(0, 1) @ mixer.q.weight.T + mixer.q.bias
    k, v = (reduced @ mixer.kv.weight.T + mixer.kv.bias).chunk(2, dim=-1)
    mixed = torch.zeros_like(q)
    for i in range(heads):
        part = slice(i * dim // heads, (i + 1) * dim // heads)
        scores = (q[:, part] @ k[:, part].T / (dim // heads) ** 0.5).exp()
        mixed[:, part] = scores / scores.sum(1, keepdim=True) @ v[:, part]
    return (mixed @ mixer.project.weight.T + mixer.project.bias).unflatten(0, (h, w))[None]


@pytest.mark.parametrize(("grid", "reduction"), [((4, 6), 2), ((8, 8), 4), ((5, 7), 2), ((6, 3), 3)])
def test_efficient_self_attention_is_its_definition(grid, reduction):
    mixer = EfficientSelfAttention(6, grid, num_heads=2, reduction=reduction).double()
    x = torch.randn(1, *grid, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), literal(mixer, x))


def test_without_reduction_it_is_self_attention():
    efficient, plain = EfficientSelfAttention(6, (3, 4), 2, reduction=1), SelfAttention(6, (3, 4), 2)
    plain.project.load_state_dict(efficient.project.state_dict())
    plain.qkv.weight.data = torch.cat([efficient.q.weight, efficient.kv.weight]).detach()
    plain.qkv.bias.data = torch.cat([efficient.q.bias, efficient.kv.bias]).detach()
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(efficient(x), plain(x))


def test_impossible_options_are_named():
    with pytest.raises(ConfigError) as error:
        EfficientSelfAttention(10, (4, 4), num_heads=3, reduction=0)
    assert {p.key[0] for p in error.value.problems} == {"num_heads", "reduction"}
