import pytest
import torch
from torch.nn.functional import layer_norm

from afno_repro.errors import ConfigError
from afno_repro.mixers.long_short import LongShort


def literal(mixer: LongShort, x: torch.Tensor) -> torch.Tensor:
    """Token by token: which tokens lie in its tile's window, one softmax over projected and window keys."""
    _, h, w, dim = x.shape
    size, margin, heads = mixer.window, mixer.margin, mixer.num_heads
    width = dim // heads
    tokens = x[0].flatten(0, 1)
    q, k, v = (tokens @ part.T for part in mixer.qkv.weight.chunk(3))
    k, v = (layer_norm(t, (dim,), mixer.norm_tokens.weight, mixer.norm_tokens.bias) for t in (k, v))
    logits = tokens @ mixer.dynamic.weight.T + mixer.dynamic.bias
    p = (logits.exp() / logits.exp().sum(0)).unflatten(-1, (heads, -1))  # N heads R
    projected = []
    for t in (k, v):
        low = torch.stack([p[:, i].T @ t[:, i * width : (i + 1) * width] for i in range(heads)], dim=1)  # R heads D
        low = layer_norm(low.flatten(1), (dim,), mixer.norm_projected.weight, mixer.norm_projected.bias)
        projected.append(low)
    mixed = torch.zeros_like(tokens)
    for row in range(h):
        for column in range(w):
            top, left = row // size * size, column // size * size
            seen = [
                r * w + c
                for r in range(max(top - margin, 0), min(top + size + margin, h))
                for c in range(max(left - margin, 0), min(left + size + margin, w))
            ]
            for i in range(heads):
                part = slice(i * width, (i + 1) * width)
                keys = torch.cat([projected[0][:, part], k[seen, part]])
                values = torch.cat([projected[1][:, part], v[seen, part]])
                scores = (keys @ q[row * w + column, part] / width**0.5).exp()
                mixed[row * w + column, part] = scores @ values / scores.sum()
    return (mixed @ mixer.project.weight.T + mixer.project.bias).unflatten(0, (h, w))[None]


@pytest.mark.parametrize("grid", [(8, 8), (5, 9), (3, 2), (4, 10), (9, 10)])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
def test_long_short_is_its_definition(grid, window):
    mixer = LongShort(6, grid, num_heads=2, window=window, rank=3).double()
    torch.nn.init.normal_(mixer.norm_tokens.bias)
    x = torch.randn(1, *grid, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), literal(mixer, x))


def test_all_impossible_options_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        LongShort(10, (4, 4), num_heads=3, window=0, rank=0)
    assert {p.key[0] for p in error.value.problems} == {"num_heads", "window", "rank"}
