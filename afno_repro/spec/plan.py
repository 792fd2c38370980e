"""Which runs fill a table's cells: spec, row and scale merged into one resolved config per row, stage and seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from afno_repro.config import RunConfig, digest
from afno_repro.errors import ConfigError, Problem
from afno_repro.options import suggest
from afno_repro.spec.resolve import SEEDED, run_config
from afno_repro.spec.spec import Spec
from afno_repro.spec.start import identity, weights_file
from afno_repro.spec.tree import MAX_DEPTH, Tree, from_plain, merge, parse_value

Need = tuple[str, str, int]  # row, stage, seed


@dataclass(frozen=True)
class Run:
    """One computation: its config, the digest that names it, and the run it starts from.

    Row and stage are those that it is first planned for. `weights` is where the file lies that it starts from instead.
    """

    digest: str
    config: RunConfig
    row: str
    stage: str
    parent: "Run | None" = None
    weights: Path | None = None

    @property
    def id(self) -> str:
        """The name of its directory."""
        return f"{self.config.kind}-{self.row}-{self.digest}"


@dataclass(frozen=True)
class Plan:
    """All runs of a spec at a scale, equal configs once, parents first; `needs` maps (row, stage, seed) to its run."""

    spec: Spec
    scale: str
    needs: dict[Need, Run]

    @property
    def runs(self) -> list[Run]:
        first: dict[str, Run] = {}
        for run in self.needs.values():
            first.setdefault(run.digest, run)
        return list(first.values())


@dataclass(frozen=True)
class Choice:
    """What was asked for; None is everything. `changes` are key=value pairs.

    `all_seeds` are those of the whole table, in place of the scale's own, `seeds` those of them that are asked for.
    """

    rows: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    all_seeds: tuple[int, ...] | None = None
    kinds: tuple[str, ...] | None = None
    latency: bool = True  # False: leave latencies out
    changes: tuple[str, ...] = ()
    rerun: bool = False  # also what was made with other data or source than today's


EVERYTHING = Choice()


def plan_runs(spec: Spec, scale: str, choice: Choice = EVERYTHING) -> Plan:
    """Resolve every run of the asked rows, seeds and kinds; one ConfigError tells every mistake found on the way."""
    plan, problems = resolve_runs(spec, scale, choice)
    if problems:
        raise ConfigError(*problems)
    return plan


def resolve_runs(spec: Spec, scale: str, choice: Choice = EVERYTHING) -> tuple[Plan, list[Problem]]:
    """The plan of whatever can be resolved, and the mistakes that keep the rest out of it."""
    scales = spec.structure.scales
    if scale not in scales:
        raise ConfigError(
            Problem(f"there is no scale {scale!r}", (), suggest(scale, list(scales), "scales"), spec.tree.place)
        )
    rows = [row.key for row in spec.rows]
    unknown = [
        Problem(f"there is no row {key!r}", (), suggest(key, rows, "rows"), spec.tree.place)
        for key in choice.rows or ()
        if key not in rows
    ]
    seeds = _all_seeds(spec, scale, choice)
    strange = sorted(set(choice.seeds or ()) - set(seeds))
    if strange:
        hint = (
            f"its seeds: {', '.join(map(str, seeds))}; a table is the mean over all of them, and "
            f"--seeds {strange[-1] + 1} makes them 0 to {strange[-1]}"
        )
        unknown.append(
            Problem(
                f"scale {scale} has no seed {', '.join(map(str, strange))}",
                (),
                hint,
                spec.tree.locate(("scales", scale, "seeds")),
            )
        )
    if unknown:
        raise ConfigError(*unknown)
    changes = [_change(text, spec) for text in choice.changes]
    needs: dict[Need, Run] = {}
    made: dict[tuple[str, str], Run] = {}
    problems: dict[tuple[str, str], Problem] = {}
    for row in rows if choice.rows is None else choice.rows:
        for stage in spec.stages:
            try:
                for need, run in _stage_runs(spec, scale, row, stage, choice, changes, made):
                    needs[need] = run
            except ConfigError as error:
                for problem in error.problems:
                    problems.setdefault((problem.place, problem.message), problem)
    return Plan(spec, scale, needs), list(problems.values())


def _stage_runs(
    spec: Spec, scale: str, row: str, stage: str, choice: Choice, changes: list[Tree], made: dict[tuple[str, str], Run]
) -> list[tuple[Need, Run]]:
    """The asked runs of a stage, each behind those that it starts from."""
    tree = _tree(spec, scale, row, stage, changes)
    if tree is None:
        return []
    if choice.kinds is not None and _said(tree, "kind") not in choice.kinds:
        return []
    if not choice.latency and _name(tree.get("task")) == "latency":
        return []
    seeds = _all_seeds(spec, scale, choice) if choice.seeds is None else choice.seeds
    if _said(tree, "kind") == "visualize" and spec.draws(stage):
        seeds = seeds[:1]  # one picture is enough
    found: list[tuple[Need, Run]] = []
    first = _run(spec, scale, row, stage, tree, seeds[0], changes, made) if seeds else None
    for seed in seeds:
        line: list[tuple[Need, Run]] = []
        run = first and _reseeded(first, seed)
        while run is not None:
            line.append(((row, run.stage, run.config.seed), run))
            run = run.parent
        found += line[::-1]
    return found


def _all_seeds(spec: Spec, scale: str, choice: Choice) -> Sequence[int]:
    """The seeds that the whole table is the mean over."""
    return spec.structure.scales[scale].seeds if choice.all_seeds is None else choice.all_seeds  # type: ignore[index]


def _said(tree: Tree, key: str) -> Any:
    """A stage's own value of a key, None where it says nothing."""
    found = tree.get(key)
    return found.plain() if found else None


def _tree(spec: Spec, scale: str, row: str, stage: str, changes: list[Tree]) -> Tree | None:
    tree = stage_tree(spec, scale, row, stage, changes)
    if tree is not None and not isinstance(tree.value, dict):
        raise ConfigError(Problem("must be a mapping or null", ("rows", row, stage), "", tree.place))
    return tree


def _run(
    spec: Spec,
    scale: str,
    row: str,
    stage: str,
    tree: Tree,
    seed: int,
    changes: list[Tree],
    made: dict[tuple[str, str], Run],
) -> Run:
    """The run of a stage's tree, with the run that it starts from: of the same row and seed, of an earlier stage.

    Runs that were `made`, all of one seed, are not made again.
    """
    init = _said(tree, "init")
    earlier = spec.stages[: spec.stages.index(stage)]
    try:
        weights = weights_file(init, spec.root)
        init = None if weights else init
        if init is not None and init not in earlier:
            raise ConfigError(
                Problem(f"there is no earlier stage {init!r}", ("init",), suggest(str(init), earlier, "earlier stages"))
            )
        if init is not None and (row, init) not in made:
            before = _tree(spec, scale, row, init, changes)
            if before is None:
                raise ConfigError(Problem(f"this row leaves the stage {init!r} out", ("init",)))
            _run(spec, scale, row, init, before, seed, changes, made)
        parent = made.get((row, init))
        config = run_config(tree, seed, parent.digest if parent else identity(weights) if weights else None)
    except ConfigError as error:
        raise located(error, tree, row, stage) from None
    made[row, stage] = Run(digest(config), config, row, stage, parent, weights)
    return made[row, stage]


def _reseeded(run: Run, seed: int) -> Run:
    """A run and those that it starts from with another seed, as far as they draw anything from it."""
    if run.config.kind not in SEEDED or run.config.seed == seed:
        return run
    parent = _reseeded(run.parent, seed) if run.parent else None
    config = replace(run.config, seed=seed, init=parent.digest if parent else run.config.init)
    return replace(run, digest=digest(config), config=config, parent=parent)


def located(error: ConfigError, tree: Tree, row: str, stage: str) -> ConfigError:
    """A stage's mistakes with their places in the spec's file."""
    return ConfigError(
        *(
            p if p.place else replace(p, key=("rows", row, stage, *p.key), place=tree.locate(p.key))
            for p in error.problems
        )
    )


def stage_scale(spec: Spec, scale: str, stage: str) -> str:
    """The scale whose model a stage uses: the paper's where its columns say so."""
    at = {column.at for column in spec.columns(scale) if column.source.split("/")[0] == stage}
    return "paper" if at == {"paper"} and "paper" in spec.structure.scales else scale


def stage_tree(spec: Spec, scale: str, row: str, stage: str, changes: list[Tree]) -> Tree | None:
    """Spec, row, scale, the scale's own row, command line, in this order; None where row or scale omit the stage.

    The scale is the paper's where that gives the model; then the asked one has its say of the stage itself: how often
    a latency is measured is a matter of the machine.
    """
    at, scales = stage_scale(spec, scale, stage), spec.tree.value["scales"].value
    if stage in spec.structure.scales[at].unavailable:  # type: ignore[index]
        return None
    rows = scales[at].get("rows")
    levels = [spec.tree, spec.row_tree(row), scales[at], rows.get(row) if rows else None]
    if at != scale and (own := scales[scale].get(stage)):
        levels.append(Tree({stage: own}, own.place))
    stages = spec.tree.get("stages")
    tree: Tree | None = None
    for i, level in enumerate(levels):
        part = (stages if i == 0 else level) and (stages if i == 0 else level).get(stage)  # type: ignore[union-attr]
        model = level.get("model") if level else None
        if model is not None:
            tree = merge(tree, Tree({"model": model}, model.place))
        tree = merge(tree, part)
        if tree is not None and tree.value is None:
            return None
    for change in changes:
        if change.get(stage) or change.get("model"):
            tree = merge(tree, change.get(stage) or change)
            if tree is not None and tree.value is None:
                return None
    task = tree.get("task") if tree else None
    if task is not None and _name(task) == "count":  # a count runs by the spec's rule
        counting = Tree({"task": spec.tree.value["counting"]}, task.place)
        tree = merge(counting, tree)
    return tree


def _name(part: Tree | None) -> object:
    """The name of a part, if it is one."""
    name = part.get("name") if part else None
    return name.value if name else None


def _change(text: str, spec: Spec) -> Tree:
    """`pretrain.train.lr=1e-4` as a tree; it changes the model or a stage."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {text}: must be KEY=VALUE, as in pretrain.train.lr=1e-4 or model.mixer.num_blocks=2")
    if key.count(".") >= MAX_DEPTH:
        raise ConfigError(f"--set {text}: a key has at most {MAX_DEPTH} parts, this one has {key.count('.') + 1}")
    allowed = ["model", *spec.stages]
    if key.split(".")[0] not in allowed:
        raise ConfigError(
            Problem(
                f"--set {text}: {spec.name} has no stage {key.split('.')[0]!r}",
                (),
                suggest(key.split(".")[0], allowed, "keys"),
            )
        )
    tree = parse_value(value, f"--set {text}")
    for name in reversed(key.split(".")):
        tree = from_plain({}, tree.place) if tree is None else Tree({name: tree}, tree.place)
    return tree
