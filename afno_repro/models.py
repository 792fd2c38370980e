"""From a ModelConfig to a network: `build_model`, and `check_model`, which finds every bad option without memory."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from afno_repro.backbones import BACKBONES, WITHOUT_MIXER
from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError, Problem
from afno_repro.heads import HEADS
from afno_repro.mixers import MIXERS
from afno_repro.mixers.contract import broken_promises
from afno_repro.mixers.own import own_mixer
from afno_repro.mixers.spectral import Grid
from afno_repro.options import fits, keywords, option_problems, suggest

PARTS: dict[str, Mapping[str, Callable[..., Any]]] = {"backbone": BACKBONES, "mixer": MIXERS, "head": HEADS}
GIVEN = {"mixer": ("dim", "grid"), "backbone": ("image_size", "mixer"), "head": ("dims", "strides")}


class Model(nn.Module):
    """A backbone with token mixers under a head: (B, 3, height, width) -> what the head predicts.

    Weights of convolutions lie channels-last, as tokens do: no convolution then has to rearrange them.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.strides: list[int] = backbone.strides  # type: ignore[assignment]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def constructor(kind: str, name: str) -> Callable[..., Any]:
    """What builds the backbone, mixer or head of a name; a mixer's may be a dotted path.

    Raises ConfigError where there is none.
    """
    if kind == "mixer" and ":" in name:
        return own_mixer(name)
    if name not in PARTS[kind]:
        raise ConfigError(
            Problem(f"there is no {kind} {name!r}", ("name",), suggest(name, PARTS[kind], f"{kind} names"))
        )
    return PARTS[kind][name]


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

    def mixer(dim: int, grid: Grid, stage: int) -> nn.Module:
        assert config.mixer is not None
        try:
            mixing: nn.Module = constructor("mixer", config.mixer.name)(dim, grid, **stage_options(config.mixer, stage))
            return mixing
        except ConfigError as error:
            raise error.within("mixer") from None

    try:
        backbone = BACKBONES[config.backbone.name](image_size, mixer, **config.backbone.options)
    except ConfigError as error:
        raise (
            error if all(p.key[:1] in ((), ("mixer",)) for p in error.problems) else error.within("backbone")
        ) from None
    try:
        head = HEADS[config.head.name](backbone.dims, backbone.strides, **config.head.options)
    except ConfigError as error:
        raise error.within("head") from None
    return Model(backbone, head)


def stage_options(mixer: Part, stage: int) -> dict[str, Any]:
    """The mixer's options in one stage: a list where one value is meant has a value for each stage."""
    hints = keywords(constructor("mixer", mixer.name))
    return {
        key: value[stage] if isinstance(value, list) and not fits(value, hints[key]) else value
        for key, value in mixer.options.items()
    }


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
        if (mixer := known.mixer) is not None and "mixer" not in unusable:
            for stage, dim in enumerate(_widths(known.backbone)):
                problems += _problems_of(
                    partial(constructor("mixer", mixer.name), dim, (1, 1), **stage_options(mixer, stage)), "mixer"
                )
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def check_own_mixer(config: ModelConfig, image_size: int) -> None:
    """Raise ConfigError with every promise that a mixer of one's own breaks, at each width and grid of a model."""
    mixer = config.mixer
    if mixer is None or ":" not in mixer.name:
        return
    places: dict[tuple[int, Grid, int], None] = {}

    def note(*place: Any) -> nn.Module:
        places[place] = None
        return nn.Identity()

    with torch.device("meta"):
        BACKBONES[config.backbone.name](image_size, note, **config.backbone.options)
    broken = [
        told
        for dim, grid, stage in places
        for told in broken_promises(partial(own_mixer(mixer.name), **stage_options(mixer, stage)), dim, grid)
    ]
    if broken:
        message = "\n  ".join([f"{mixer.name} is no token mixer: it does not hold that one", *dict.fromkeys(broken)])
        raise ConfigError(Problem(message, ("mixer", "name")))


def _widths(backbone: Part) -> list[int]:
    """The widths of a backbone's stages, as far as its options say them."""
    widths = backbone.options.get("embed_dims", [backbone.options.get("embed_dim")])
    return [dim for dim in widths if isinstance(dim, int) and dim > 0] if isinstance(widths, list) else []


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

    return ModelConfig(
        known("backbone", config.backbone), config.mixer and known("mixer", config.mixer), known("head", config.head)
    )


def _option_problems(config: ModelConfig) -> list[Problem]:
    """What is wrong with the names and options of the three parts, before anything is built."""
    problems: list[Problem] = []
    for kind in PARTS:
        part: Part | None = getattr(config, kind)
        if part is None:
            continue
        try:
            make = constructor(kind, part.name)
        except ConfigError as error:
            problems += error.within(kind).problems
            continue
        each_stage = _each_stage(part, config.backbone) if kind == "mixer" else [part.options]
        found = [p for options in each_stage for p in option_problems(part.name, options, make, GIVEN[kind])]
        problems += ConfigError(*dict.fromkeys(found)).within(kind).problems
    if config.backbone.name in BACKBONES and (config.mixer is None) != (config.backbone.name in WITHOUT_MIXER):
        wants = "takes no token mixer" if config.mixer else "needs a token mixer"
        problems.append(Problem(f"{config.backbone.name} {wants}", ("mixer",), f"mixers: {', '.join(MIXERS)}"))
    return problems


def _each_stage(mixer: Part, backbone: Part) -> list[dict[str, Any]]:
    """The mixer's options in every stage of a backbone; a list of another length stays: a mistake to be named."""
    stages = getattr(BACKBONES.get(backbone.name), "num_stages", 1)
    hints = keywords(constructor("mixer", mixer.name))
    split = {
        key
        for key, value in mixer.options.items()
        if isinstance(value, list) and key in hints and not fits(value, hints[key]) and len(value) == stages > 1
    }
    return [{key: value[i] if key in split else value for key, value in mixer.options.items()} for i in range(stages)]
