"""What every mixer promises, whatever it computes; an own one is held to it before any work.

Shapes: B batch, H W token grid, C channels.
"""

import copy
import traceback
from collections.abc import Callable

import torch
from torch import Tensor, nn

from afno_repro.errors import ConfigError
from afno_repro.mixers.spectral import Grid

Build = Callable[[int, Grid], nn.Module]
Promise = Callable[[Callable[[], nn.Module], Tensor], str]  # how it is broken, or nothing
MOST_TOKENS, CUT_SIDE = 1024, 16  # larger grids are tried with their sides cut, to take seconds at most
CLOSE = 1e-4


def broken_promises(build: Build, dim: int, grid: Grid) -> list[str]:
    """Every promise that a mixer of this width and grid breaks, and how; the order of random numbers stays.

    What is raised at one line of its code is told once, with file and line.
    """
    cut = grid[0] * grid[1] > MOST_TOKENS
    grid = (min(grid[0], CUT_SIDE), min(grid[1], CUT_SIDE)) if cut else grid
    broken, raised = list[str](), set[tuple[str, str]]()
    for promise, look in PROMISES.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tokens = torch.randn(2, *grid, dim)
            try:
                how = look(lambda: build(dim, grid), tokens)
            except ConfigError as error:
                how = "" if cut else str(error)  # a limit of its own, which the whole grid may keep
            except Exception as error:  # whatever an own mixer does
                kind, where = type(error).__name__, _where(error)
                broken += [] if (kind, where) in raised else [f"{promise}: {kind}{where}: {error}"]
                raised.add((kind, where))
                continue
        if how:
            broken.append(f"{promise}: {how} (tokens {tuple(tokens.shape)})")
    return broken


def _where(error: Exception) -> str:
    """The last line of the mixer's own package that was reached, or nothing where none was."""
    lines = [
        (str(frame.f_globals.get("__name__")).partition(".")[0], f" at {frame.f_code.co_filename}:{line}")
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = next((package for package, _ in lines if package not in ("afno_repro", "torch")), None)
    return next((line for package, line in reversed(lines) if package == own), "")


def _shape(build: Callable[[], nn.Module], x: Tensor) -> str:
    y = build()(x)
    return "" if (y.shape, y.dtype) == (x.shape, x.dtype) else f"gives {tuple(y.shape)}, {y.dtype}, for {x.dtype}"


def _gradients(build: Callable[[], nn.Module], x: Tensor) -> str:
    mixer, x = build(), x.requires_grad_()
    mixer(x).square().sum().backward()
    gradients = {"its input": x.grad, **{name: weight.grad for name, weight in mixer.named_parameters()}}
    wrong = [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all()]
    return f"none, or not finite, for {', '.join(wrong)}" if wrong else ""


def _input(build: Callable[[], nn.Module], x: Tensor) -> str:
    before = x.clone()
    with torch.no_grad():
        build()(x)
    return "" if torch.equal(x, before) else "writes into it"


def _same(build: Callable[[], nn.Module], x: Tensor) -> str:
    mixer = build().eval()
    return "" if torch.equal(mixer(x), mixer(x)) else "differs from one call to the next"


def _seeded(build: Callable[[], nn.Module], x: Tensor) -> str:
    torch.manual_seed(1)
    first = build().state_dict()
    torch.manual_seed(1)
    second = build().state_dict()
    differing = [name for name, value in first.items() if not torch.equal(value, second[name])]
    return f"{', '.join(differing)} differ" if differing else ""


def _batch(build: Callable[[], nn.Module], x: Tensor) -> str:
    mixer = build().eval()
    alone = torch.cat([mixer(item[None]) for item in x])
    return (
        ""
        if torch.allclose(mixer(x), alone, atol=CLOSE, rtol=CLOSE)
        else "an image's tokens depend on the others of its batch"
    )


def _copied(build: Callable[[], nn.Module], x: Tensor) -> str:
    mixer = build().eval()
    before, other = mixer(x), copy.deepcopy(mixer)
    if not torch.equal(other(x), before):
        return "a deep copy computes something else"
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1)
    return "" if torch.equal(mixer(x), before) else "a deep copy shares its weights"


def _restored(build: Callable[[], nn.Module], x: Tensor) -> str:
    mixer, other = build().eval(), build().eval()
    other.load_state_dict(mixer.state_dict())
    return "" if torch.equal(other(x), mixer(x)) else "another one with the same state_dict computes something else"


def _half(build: Callable[[], nn.Module], x: Tensor) -> str:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = build()(x)
    return "" if y.shape == x.shape and y.isfinite().all() else "its output is not finite, or of another shape"


def _counted(build: Callable[[], nn.Module], x: Tensor) -> str:
    with torch.no_grad(), torch.device("meta"):
        y = build()(torch.empty_like(x, device="meta"))
    return "" if y.shape == x.shape and y.is_meta else f"gives {tuple(y.shape)} on {y.device}"


PROMISES: dict[str, Promise] = {
    "keeps shape and precision of tokens (batch, height, width, channels)": _shape,
    "gives its input and each weight a finite gradient": _gradients,
    "leaves its input as it is": _input,
    "computes the same from the same weights": _same,
    "starts from the same weights after the same seed": _seeded,
    "mixes each image for itself": _batch,
    "can be copied": _copied,
    "is restored from its state_dict": _restored,
    "runs under autocast in bf16": _half,
    "runs on the meta device, where costs are counted": _counted,
}
