"""What is built, fed and trained, as frozen data: everything that can change a number, and nothing that cannot.

No field has a default: the spec says everything, so an edited default can never let an old run answer a new question.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Part:
    """A named constructor and its keywords: `{name: afno, num_blocks: 4}`."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ModelConfig:
    """What is built; a backbone without token mixers has mixer None."""

    backbone: Part
    mixer: Part | None
    head: Part


@dataclass(frozen=True)
class DataConfig:
    """What is fed. A profile needs the image size alone: its other fields are None and empty."""

    name: str | None
    image_size: int  # pixels along each side
    fraction: float | None  # share of the training images, chosen by `seed`
    seed: int | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    epochs: int
    batch_size: int  # images a step, over all devices
    optimizer: Literal["adam", "adamw"]  # adam: weight decay as an L2 term; adamw: decoupled
    schedule: Literal["cosine", "constant"]
    lr: float
    min_lr: float
    warmup: dict[Literal["epochs", "steps"], int]  # length of the linear rise; both units add up
    head_lr_factor: float
    weight_decay: float
    clip_norm: float | None
    precision: Literal["float32", "bf16"]
    augment: dict[str, Any]  # a Part in the spec's own form: {name: ..., options}
    eval_every: int  # epochs


@dataclass(frozen=True)
class RunConfig:
    """One computation, completely."""

    kind: str
    task: Part
    model: ModelConfig | None
    data: DataConfig
    train: TrainConfig | None
    seed: int
    init: str | None  # digest of the run that it starts from, or sha256:... of a file of weights; None: scratch


@dataclass(frozen=True)
class Machine:
    """What cannot change a number beyond rounding; never part of a run's identity.

    The exception is batch norm, which sees one device's micro-batch.
    """

    device: str
    devices: int  # of all nodes together, one process each
    micro_batch: int | None  # images at a time on a device; None: its share of the batch
    activation_checkpointing: bool
    compile: bool  # the backbone, by torch.compile
    jobs: int
    threads: int
    num_workers: int
    data_root: Path
    runs_root: Path
    checkpoint_every_s: float
    code: Mapping[str, Any]  # commit and source as the command started: see runs.source


def canonical_json(config: RunConfig) -> str:
    """The config as JSON with sorted keys: the text whose hash is the run's identity.

    `init` is left out where it is None, so that runs from scratch keep the digest they had before it existed.
    """
    tree = {key: value for key, value in vars(config).items() if key != "init" or value is not None}
    return json.dumps(tree, default=vars, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(config: RunConfig) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the whole config."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:12]


def config_from_json(tree: Mapping[str, Any]) -> RunConfig:
    """The inverse of `dataclasses.asdict` for a RunConfig."""
    model, train = tree["model"], tree["train"]
    return RunConfig(
        kind=tree["kind"],
        task=Part(**tree["task"]),
        model=None
        if model is None
        else ModelConfig(**{f.name: model[f.name] and Part(**model[f.name]) for f in fields(ModelConfig)}),
        data=DataConfig(**tree["data"]),
        train=None if train is None else TrainConfig(**train),
        seed=tree["seed"],
        init=tree.get("init"),
    )
