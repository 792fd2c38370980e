"""Everything about a run that can be wrong is found here, in seconds, before any work: models are built on `meta`."""

from math import log2
from typing import Any

import torch

from afno_repro.config import ModelConfig, Part, RunConfig
from afno_repro.data import DATASETS
from afno_repro.data import GIVEN as DATA_GIVEN
from afno_repro.data.transforms import AUGMENTS, check_augment
from afno_repro.errors import ConfigError, DataError, Problem
from afno_repro.fills import FILLS
from afno_repro.models import build_model, check_model, check_own_mixer
from afno_repro.options import option_problems, suggest
from afno_repro.profiling.flops import CountingRule
from afno_repro.profiling.growth import Growth
from afno_repro.profiling.measure import Latency
from afno_repro.runs.executors import metrics_of
from afno_repro.spec.plan import Plan, Run, located, stage_tree
from afno_repro.tasks import TASKS
from afno_repro.visualize.visuals import VISUALS
from afno_repro.weights.checkpoint import read_state_dict
from afno_repro.weights.load import fit, trunk

MAX_SIZE, MAX_LAYERS = 2**16, 1000  # of a model: any whole number, and layers of a stage
PROFILES: dict[str, Any] = {"count": CountingRule, "growth": Growth, "latency": Latency}
_sound: set[str] = set()  # models of this package that were built before, as other stages and scales have them too


def check_runs(plan: Plan, runs: list[Run]) -> list[Problem]:
    """The mistakes in some runs' configs, with their places in the spec; equal parts are looked at once."""
    problems: dict[tuple[str, str], Problem] = {}
    checked: set[Any] = set()
    for run in runs:
        config = run.config
        key = repr((config.kind, config.task, config.model, config.data, config.train, run.weights and config.init))
        if key in checked:
            continue
        checked.add(key)
        tree = stage_tree(plan.spec, plan.scale, run.row, run.stage, [])
        error = ConfigError(*(config_problems(config) or _start_problems(run)))
        for problem in (located(error, tree, run.row, run.stage) if tree else error).problems:
            problems.setdefault((problem.place, problem.message), problem)
    return list(problems.values())


def metric_problems(plan: Plan) -> list[Problem]:
    """Columns of a sound plan of all rows whose stage has no such metric in any of them."""
    problems, spec = list[Problem](), plan.spec
    for i, (column, own) in enumerate(zip(spec.columns(plan.scale), spec.structure.columns, strict=True)):
        stage, metric = column.source.split("/")
        of_rows = [metrics_of(run.config) for need, run in plan.needs.items() if need[1] == stage]
        known = {key for keys in of_rows for key in keys or ()}
        watched = metric.startswith("alive_")  # of an AFNO's layers, which its network tells
        if of_rows and None not in of_rows and metric not in known and not watched:
            changed = column.source != own.source
            keys = ("scales", plan.scale, "columns", own.key, "source") if changed else ("columns", i, "source")
            hint = suggest(metric, sorted(known), "its metrics")
            place = spec.tree.locate(keys)
            problems.append(
                Problem(f"the stage {stage!r} has no metric {metric!r}", tuple(map(str, keys)), hint, place)
            )
    return problems


def _start_problems(run: Run) -> list[Problem]:
    """Why the file that a run starts from holds no trunk of its network."""
    if run.weights is None or run.config.model is None:
        return []
    with torch.device("meta"):
        expected = build_model(run.config.model, run.config.data.image_size).state_dict()
    try:
        fit(expected, trunk(read_state_dict(run.weights)))
    except (ConfigError, DataError) as error:
        problems = error.problems if isinstance(error, ConfigError) else [Problem(str(error))]
        told = [f"{'.'.join(p.key)}: {p.message}" if p.key else p.message for p in problems]
        message = "\n  ".join([f"{run.weights}: does not fit this network", *told])
        return [Problem(message, ("init", "weights"), "`afno convert` says which network a file holds")]
    return []


def config_problems(config: RunConfig) -> list[Problem]:
    """Names, options and sizes of one run that cannot be used, keyed from the stage."""
    problems: list[Problem] = []
    if config.model is not None:
        problems += _size_problems(config.model, config.data.image_size) or _model_problems(
            config.model, config.data.image_size
        )
    if config.kind == "profile":
        problems += _part_problems(config.task, PROFILES, (), "task", construct=True)
        return problems or (_growth_problems(config) if config.task.name == "growth" else [])
    shows = config.kind == "visualize"
    options = {key: value for key, value in config.task.options.items() if key != ("images" if shows else "fill")}
    task = Part(config.task.name, options)
    problems += _part_problems(
        task, VISUALS if shows else TASKS, ("image_size",), "task", construct=True, image_size=config.data.image_size
    )
    images = config.task.options.get("images")
    if shows and (not isinstance(images, int) or images < 1):
        problems.append(Problem(f"must be a number of images of at least 1, is {images!r}", ("task", "images")))
    fill = config.task.options.get("fill")
    if config.kind == "baseline" and (not isinstance(fill, str) or fill not in FILLS):
        problems.append(Problem(f"there is no fill {fill!r}", ("task", "fill"), suggest(str(fill), FILLS, "fills")))
    assert config.data.name is not None
    problems += _part_problems(Part(config.data.name, config.data.options), DATASETS, DATA_GIVEN, "data")
    classes, head = options.get("num_classes"), config.model.head.options if config.model else {}
    if classes is not None and head.get("num_classes") != classes:
        problems.append(
            Problem(
                f"must be the {classes} classes of the task, is {head.get('num_classes')!r}",
                ("model", "head", "num_classes"),
            )
        )
    if config.train is not None:
        augment = {key: value for key, value in config.train.augment.items() if key != "name"}
        part = Part(config.train.augment["name"], augment)
        found = _part_problems(part, AUGMENTS, ("example", "size", "rng"), "augment") or _unusable(part)
        problems += ConfigError(*found).within("train").problems
    return _unshowable(config, task) if shows and not problems else problems


def _unshowable(config: RunConfig, task: Part) -> list[Problem]:
    """Why a network cannot be shown, before anything trains it."""
    assert config.model is not None
    with torch.device("meta"):
        model = build_model(config.model, config.data.image_size)
    try:
        VISUALS[task.name](config.data.image_size, **task.options).check(model)
    except ConfigError as error:
        return list(error.within("task").problems)
    return []


def _unusable(augment: Part) -> list[Problem]:
    try:
        check_augment(augment.name, augment.options)
    except ConfigError as error:
        return list(error.within("augment").problems)
    return []


def _model_problems(model: ModelConfig, image_size: int) -> list[Problem]:
    looked_at = repr((model, image_size))
    if looked_at in _sound:
        return []
    try:
        check_model(model, image_size)
        check_own_mixer(model, image_size)
    except ConfigError as error:
        return list(error.within("model").problems)
    except RuntimeError as error:  # PyTorch refuses a tensor of more bytes than it can count
        return [Problem(f"no memory holds this model ({str(error).splitlines()[0]})", ("model",))]
    if model.mixer is None or ":" not in model.mixer.name:  # one's own code may change
        _sound.add(looked_at)
    return []


def _size_problems(model: ModelConfig, image_size: int) -> list[Problem]:
    """Sizes beyond any network's, with which looking at the model would not end."""
    parts = {"backbone": model.backbone, "mixer": model.mixer, "head": model.head}
    sizes: dict[tuple[str, ...], Any] = {
        ("model", kind, key): value for kind, part in parts.items() if part for key, value in part.options.items()
    }
    problems = []
    for key, value in {**sizes, ("data", "image_size"): image_size}.items():
        largest = MAX_LAYERS if key[-1] in ("depth", "depths") else MAX_SIZE
        if any(isinstance(one, int) and one > largest for one in (value if isinstance(value, list) else [value])):
            problems.append(Problem(f"must be at most {largest}, is {value!r}", key))
    return problems


def _growth_problems(config: RunConfig) -> list[Problem]:
    """Doublings that lead to sizes beyond any network's."""
    doublings = config.task.options["doublings"]
    if doublings <= log2(MAX_SIZE / config.data.image_size):
        return []
    return [Problem(f"{doublings} make images of more than {MAX_SIZE} pixels a side", ("task", "doublings"))]


def _part_problems(
    part: Part, table: Any, given: tuple[str, ...], key: str, construct: bool = False, **arguments: Any
) -> list[Problem]:
    """Hold a part's name and options to a table of constructors; `construct` also calls one, which checks ranges."""
    if part.name not in table:
        return [Problem(f"there is no {key} {part.name!r}", (key, "name"), suggest(part.name, table, "names"))]
    problems = option_problems(part.name, part.options, table[part.name], given)
    if not problems and construct:
        try:
            table[part.name](**arguments, **part.options)
        except ConfigError as error:
            problems = list(error.problems)
    return list(ConfigError(*problems).within(key).problems)
