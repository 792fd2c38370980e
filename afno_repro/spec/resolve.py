"""From one stage of one row, fully merged, to its RunConfig: every field said, every mistake found, no torch needed."""

from typing import Any

from afno_repro.config import DataConfig, ModelConfig, Part, RunConfig, TrainConfig, completed
from afno_repro.errors import ConfigError, Problem
from afno_repro.options import option_problems, suggest
from afno_repro.spec.tree import Tree

TRAINED = ("pretrain", "finetune")
SEEDED = (*TRAINED, "visualize")  # kinds whose outcome depends on the seed, if only on that of the run they start from
KINDS = ("profile", "baseline", *SEEDED)
STAGE_KEYS = ("kind", "task", "model", "data", "train", "init")
MODEL_KEYS = ("backbone", "mixer", "head")
DATA_KEYS = ("name", "image_size", "fraction", "seed")


def run_config(tree: Tree, seed: int, init: str | None = None) -> RunConfig:
    """The config of a stage; raises one ConfigError with every mistake, keyed from the stage.

    `init` is the digest of the run, or the SHA-256 of the weights, that the stage starts from. A profile and a baseline
    draw nothing from the run's seed: theirs is always 0.
    """
    stage, problems = tree.plain(), []
    problems += _unknown(stage, STAGE_KEYS, ())
    kind = stage.get("kind")
    if kind not in KINDS:
        problems.append(Problem(f"must be one of {', '.join(KINDS)}, is {kind!r}", ("kind",)))
    task = _part(stage.get("task"), ("task",), problems)
    model = _model(stage.get("model"), kind, problems)
    data = _data(stage.get("data"), kind, problems)
    train = _train(stage.get("train"), kind, problems)
    if kind == "visualize" and (init is None or isinstance(stage["init"], dict)):
        problems.append(Problem("a visualize stage needs the stage whose network it shows", ("init",)))
    if stage.get("init") is not None and kind not in SEEDED:
        problems.append(Problem(f"a {kind} stage starts from no other", ("init",)))
    if problems:
        raise ConfigError(*problems)
    return RunConfig(
        kind=kind, task=task, model=model, data=data, train=train, seed=seed if kind in SEEDED else 0, init=init
    )


def _unknown(value: dict[str, Any], known: tuple[str, ...], keys: tuple[str, ...]) -> list[Problem]:
    return [
        Problem(f"unknown key {key!r}", (*keys, key), suggest(key, known, "its keys"), unknown=True)
        for key in value
        if key not in known
    ]


def _part(value: Any, keys: tuple[str, ...], problems: list[Problem]) -> Part:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        problems.append(Problem("must be a mapping with a name", keys))
        return Part("", {})
    return Part(value["name"], {key: option for key, option in value.items() if key != "name"})


def _model(value: Any, kind: Any, problems: list[Problem]) -> ModelConfig | None:
    if value is None:
        if kind != "baseline":
            problems.append(Problem(f"a {kind} stage needs a model", ("model",)))
        return None
    if not isinstance(value, dict):
        problems.append(Problem("must be a mapping", ("model",)))
        return None
    problems += _unknown(value, MODEL_KEYS, ("model",))
    mixer = None if value.get("mixer") is None else _part(value["mixer"], ("model", "mixer"), problems)
    return ModelConfig(
        _part(value.get("backbone"), ("model", "backbone"), problems),
        mixer,
        _part(value.get("head"), ("model", "head"), problems),
    )


def _data(value: Any, kind: Any, problems: list[Problem]) -> DataConfig:
    """A profile needs the image size alone."""
    if not isinstance(value, dict):
        problems.append(Problem("must be a mapping", ("data",)))
        return DataConfig(None, 0, None, None, {})
    fields: dict[str, Any] = {key: value.get(key) for key in DATA_KEYS}
    options = {key: option for key, option in value.items() if key not in DATA_KEYS}
    if kind == "profile":
        problems += _unknown(value, ("image_size",), ("data",))
    else:
        missing = [key for key in DATA_KEYS if value.get(key) is None and key != "image_size"]
        problems += [Problem(f"the key {key!r} is missing", ("data",)) for key in missing]
    found = ConfigError(*option_problems("data", {**fields, "options": options}, DataConfig)).within("data").problems
    size = fields["image_size"]
    if not found and size < 1:
        problems.append(Problem(f"must be at least 1, is {size}", ("data", "image_size")))
    if not found and (fields["seed"] or 0) < 0:
        problems.append(Problem(f"must be at least 0, is {fields['seed']}", ("data", "seed")))
    problems += found
    return DataConfig(**fields, options=options)


def _train(value: Any, kind: Any, problems: list[Problem]) -> TrainConfig | None:
    if kind not in TRAINED:
        if value is not None:
            problems.append(Problem(f"a {kind} stage trains nothing", ("train",)))
        return None
    value = completed("train", value if isinstance(value, dict) else {})
    found = option_problems("train", value, TrainConfig)
    if not found:
        found = _ranges(TrainConfig(**value))
    problems += ConfigError(*found).within("train").problems
    return None if found else TrainConfig(**{**value, "lr": float(value["lr"]), "min_lr": float(value["min_lr"])})


def _ranges(train: TrainConfig) -> list[Problem]:
    """Values that no training could use."""
    positive = {"epochs": train.epochs, "batch_size": train.batch_size, "lr": train.lr, "eval_every": train.eval_every}
    problems = [Problem(f"must be above 0, is {value}", (key,)) for key, value in positive.items() if value <= 0]
    not_negative = {
        "min_lr": train.min_lr,
        "weight_decay": train.weight_decay,
        "head_lr_factor": train.head_lr_factor,
        "clip_norm": train.clip_norm or 0,
    }
    problems += [Problem(f"must be at least 0, is {value}", (key,)) for key, value in not_negative.items() if value < 0]
    if min(train.warmup.values(), default=-1) < 0:
        problems.append(Problem("must give epochs or steps of at least 0", ("warmup",)))
    if not isinstance(train.augment.get("name"), str):
        problems.append(Problem("must be a mapping with a name", ("augment",)))
    return problems
