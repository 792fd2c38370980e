"""What is built, fed and trained, as frozen data: everything that can change a number, and nothing that cannot.

No field has a default: the spec says everything, so an edited default can never let an old run answer a new question.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

# Options that came later: the part, the option, and the value that means "as before". Where a spec leaves one out it
# has that value; at that value it is left out of a run's identity, so that old runs keep their digests.
ADDED: tuple[tuple[str, str, Any], ...] = (
    ("run", "init", None),
    ("train", "decay", "all"),
    ("backbone vit", "linear_std", None),
    ("backbone segformer", "linear_std", None),
    ("backbone segformer", "drop_path", 0.0),
    ("backbone swin", "final_norm", False),
    ("mixer gfn", "init_std", 0.02),
    ("head classification", "linear_std", None),
    ("data imagenet", "interpolation", "bilinear"),
    ("data imagenet", "tuning", None),
    *(
        ("data " + name, "max_megapixels", 100)
        for name in ("imagenet", "folder", "parquet", "datasetgan", "fewshot", "cityscapes", "camvid")
    ),
    ("augment rand_augment", "levels", 31),
    ("augment rand_augment", "translation", 150 / 331),
    ("augment rand_augment", "probability", 1.0),
    ("augment rand_augment", "fill", "black"),
)


def completed(part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A part's options, those that came later included."""
    return {**{option: before for of, option, before in ADDED if of == part}, **options}


def identifying(part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A part's options less those that came later and are as before."""
    return {option: value for option, value in options.items() if (part, option, value) not in ADDED}


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

    def __post_init__(self) -> None:
        for kind, part in vars(self).items():
            if part is not None:
                object.__setattr__(self, kind, Part(part.name, completed(f"{kind} {part.name}", part.options)))


@dataclass(frozen=True)
class DataConfig:
    """What is fed. A profile needs the image size alone: its other fields are None and empty."""

    name: str | None
    image_size: int  # pixels along each side
    fraction: float | None  # share of the training images, chosen by `seed`
    seed: int | None
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", completed(f"data {self.name}", self.options))

    @property
    def title(self) -> str:
        """The set as `afno data` names it, with its folder where any may be one: parquet/cifar10."""
        return "/".join(filter(None, (self.name, self.options.get("folder"))))


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
    decay: Literal["all", "all_but_vectors_and_positions", "all_but_norms_biases_and_positions"]  # what it reaches
    clip_norm: float | None
    precision: Literal["float32", "tf32", "bf16"]  # tf32 is float32 on a CPU
    augment: dict[str, Any]  # a Part in the spec's own form: {name: ..., options}
    eval_every: int  # epochs

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", completed(f"augment {self.augment.get('name')}", self.augment))


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

    @property
    def counted(self) -> bool:
        """Whether its numbers are counts, the same on every machine."""
        return self.kind == "profile" and self.task.name in ("count", "growth")


@dataclass(frozen=True)
class Machine:
    """What cannot change a number beyond rounding; never part of a run's identity.

    The exceptions are layers that draw or average over what one device sees: dropout and drop path, which each device
    draws for its share, and batch norm, which averages over one micro-batch (of all GPUs, of one process on a CPU).
    A record says how many devices there were and how large a micro-batch was.
    """

    device: str
    devices: int  # of all nodes together, one process each
    micro_batch: int | None  # images at a time on a device; None: its share of the batch
    fitted: bool  # whether micro_batch follows from the memory there is, because nobody said
    activation_checkpointing: bool
    compile: bool  # the backbone, by torch.compile
    jobs: int
    gpus: tuple[str, ...]  # that runs side by side are spread over, each seeing its own alone; empty: no such choice
    threads: int
    num_workers: int
    data_root: Path
    runs_root: Path
    checkpoint_every_s: float
    tensorboard: bool  # whether trainings write their curves for it
    worker: bool  # whether what other commands hold is waited for, as long as it takes
    code: Mapping[str, Any]  # commit and source as the command started: see runs.source

    @property
    def per_gpu(self) -> int:
        """How many processes share a GPU at most."""
        return -(-self.jobs // max(1, len(self.gpus)))


def canonical_json(config: RunConfig) -> str:
    """The config as JSON with sorted keys, less what is as before: the text whose hash is the run's identity."""
    tree = identifying("run", vars(config))
    if config.model is not None:
        tree["model"] = {
            kind: part and {"name": part.name, "options": identifying(f"{kind} {part.name}", part.options)}
            for kind, part in vars(config.model).items()
        }
    tree["data"] = vars(config.data) | {"options": identifying(f"data {config.data.name}", config.data.options)}
    if config.train is not None:
        augment = identifying(f"augment {config.train.augment['name']}", config.train.augment)
        tree["train"] = identifying("train", vars(config.train)) | {"augment": augment}
    return json.dumps(tree, default=vars, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(config: RunConfig) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the whole config."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:12]


def config_from_json(tree: Mapping[str, Any]) -> RunConfig:
    """The inverse of `dataclasses.asdict` for a RunConfig."""
    model, train = tree["model"], tree["train"]
    tree = completed("run", tree)
    return RunConfig(
        kind=tree["kind"],
        task=Part(**tree["task"]),
        model=None
        if model is None
        else ModelConfig(**{f.name: model[f.name] and Part(**model[f.name]) for f in fields(ModelConfig)}),
        data=DataConfig(**tree["data"]),
        train=None if train is None else TrainConfig(**completed("train", train)),
        seed=tree["seed"],
        init=tree["init"],
    )
