"""From a ModelConfig to a network: `build_model`, and `check_model`, which finds every bad option without any memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from afno_repro.backbones import BACKBONES
from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError, Problem
from afno_repro.heads import HEADS
from afno_repro.mixers import MIXERS
from afno_repro.mixers.spectral import Grid
from afno_repro.options import option_problems, suggest

GIVEN = {"mixer": ("dim", "grid"), "backbone": ("image_size", "mixer"), "head": ("dims", "strides")}


class Model(nn.Module):
    """A backbone with token mixers under a head: (B, 3, height, width) -> what the head predicts."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def build_model(config: ModelConfig, image_size: int) -> Model:
    """The network for images of image_size pixels a side, on the current default device.

    Raises ConfigError with the key of every option that is unknown, missing, of the wrong type or out of range.
    """
    problems = _option_problems(config)
    if problems:
        raise ConfigError(*problems)
    return _assemble(config, image_size)


def _assemble(config: ModelConfig, image_size: int) -> Model:
    """Build from options that are known to fit the constructors."""

    def mixer(dim: int, grid: Grid) -> nn.Module:
        if config.mixer is None:
            raise ConfigError(Problem(f"{config.backbone.name} needs a token mixer", (), f"mixers: {', '.join(MIXERS)}"))
        try:
            return MIXERS[config.mixer.name](dim, grid, **config.mixer.options)
        except ConfigError as error:
            raise error.within("mixer") from None

    try:
        backbone = BACKBONES[config.backbone.name](image_size, mixer, **config.backbone.options)
    except ConfigError as error:
        raise error if all(p.key[:1] in ((), ("mixer",)) for p in error.problems) else error.within("backbone") from None
    return Model(backbone, HEADS[config.head.name](backbone.dims, backbone.strides, **config.head.options))


def check_model(config: ModelConfig, image_size: int) -> None:
    """Raise one ConfigError with everything wrong in `config`; built on the meta device, which takes no memory.

    An unknown option does not hide a bad value of another, nor a backbone's mistake its mixer's.
    """
    problems = _option_problems(config)
    unusable = {p.key[0] for p in problems if p.key[-1:] == ("name",) or not p.unknown}
    known = _without_unknown(config, problems)
    with torch.device("meta"):
        if not unusable:
            problems += _problems_of(lambda: _assemble(known, image_size))
        dim = known.backbone.options.get("embed_dim")
        if known.mixer is not None and "mixer" not in unusable and isinstance(dim, int) and dim > 0:
            mixer = known.mixer
            problems += _problems_of(lambda: MIXERS[mixer.name](dim, (1, 1), **mixer.options), "mixer")
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def _problems_of(build: Callable[[], nn.Module], *key: str) -> list[Problem]:
    try:
        build()
    except ConfigError as error:
        return list(error.within(*key).problems)
    return []


def _without_unknown(config: ModelConfig, problems: list[Problem]) -> ModelConfig:
    """The config less the options that problems call unknown."""
    unknown = {p.key for p in problems if p.unknown}

    def known(kind: str, part: Part) -> Part:
        return Part(part.name, {key: value for key, value in part.options.items() if (kind, key) not in unknown})

    return ModelConfig(known("backbone", config.backbone), config.mixer and known("mixer", config.mixer), known("head", config.head))


def _option_problems(config: ModelConfig) -> list[Problem]:
    """What is wrong with the names and options of the three parts, before anything is built."""
    problems: list[Problem] = []
    for kind, table in (("backbone", BACKBONES), ("mixer", MIXERS), ("head", HEADS)):
        part: Part | None = getattr(config, kind)
        if part is None:
            continue
        if part.name not in table:
            problems.append(Problem(f"there is no {kind} {part.name!r}", (kind, "name"), suggest(part.name, table, f"{kind} names")))
        else:
            problems += ConfigError(*option_problems(part.name, part.options, table[part.name], GIVEN[kind])).within(kind).problems
    return problems
