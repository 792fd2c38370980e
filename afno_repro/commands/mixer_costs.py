"""`afno profile --mixer afno --res 1024`: what mixers cost in a backbone, counted and measured, without a spec.

Models come from the tables: a mixer's options are those of the first row that pairs it with the backbone, the head is
that of the table's task, also where the table counts the network as it is pretrained: so all sizes are of one kind.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from afno_repro.config import ModelConfig
from afno_repro.errors import ConfigError, DataError, Problem
from afno_repro.escape import csv_lines, md
from afno_repro.files import write_atomic
from afno_repro.memory import available_bytes, held_by_others_bytes, out_of_memory
from afno_repro.models import Model, build_model, check_model
from afno_repro.options import suggest
from afno_repro.profiling.flops import CountingRule, count
from afno_repro.profiling.measure import measure
from afno_repro.runs.provenance import device_name
from afno_repro.spec.places import Places, sound_specs
from afno_repro.spec.plan import Choice, resolve_runs
from afno_repro.tables.figures import FORMATS

BUDGET_S, MOST_PASSES = 60.0, 20  # of one mixer's latency
COUNTED_AS = "table4"


@dataclass(frozen=True)
class Asked:
    """What is profiled, and how."""

    backbone: str
    mixers: tuple[str, ...]
    resolutions: tuple[str, ...]  # HEIGHT or HEIGHTxWIDTH in pixels
    batch: int
    precision: str
    mode: str
    latency: bool
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """One mixer at one resolution; what was not measured is None. Parameters in units, GFLOPs in 1e9."""

    mixer: str
    backbone: str
    head: str
    resolution: int | str
    tokens: int
    batch: int
    precision: str
    mode: str
    device: str
    params: int
    mixer_params: int
    gflops: float
    mixer_gflops: float
    gflops_full: float
    mixer_gflops_full: float
    latency_s: float | None
    latency_spread_s: float | None
    images_per_s: float | None
    peak_memory_mib: float | None
    state: str


@dataclass(frozen=True)
class Pair:
    """A mixer in a backbone, as a table has it."""

    backbone: str
    model: ModelConfig
    image_size: int
    rule: CountingRule


def profile_mixers(places: Places, asked: Asked, device: str) -> list[Profile]:
    """Profile every asked mixer at every asked resolution; one ConfigError tells all that cannot be built."""
    sizes = [_size(text) for text in asked.resolutions]
    pairs = [_pair(places, asked, mixer) for mixer in _mixers(places, asked)]
    problems = [problem for pair in pairs for problem in _problems(pair)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return [_profile(pair, size, asked, torch.device(device)) for pair in pairs for size in sizes]


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if not found:
        raise ConfigError(f"--res {text}: must be a height or HEIGHTxWIDTH in pixels, as in 1024 or 512x1024")
    return int(found[1]), int(found[2] or found[1])


def slug(title: str) -> str:
    """A backbone's name on the command line: `Segformer-B3/4` is segformer-b3."""
    return title.lower().removesuffix("/4")


def _mixers(places: Places, asked: Asked) -> list[str]:
    """The mixers asked for; `all` is every mixer of Table 4, once."""
    named = [row.model["mixer"]["name"] for row in sound_specs(places, COUNTED_AS)[0].rows if row.model]
    return list(dict.fromkeys(name for mixer in asked.mixers for name in (named if mixer == "all" else [mixer])))


def _pair(places: Places, asked: Asked, mixer: str) -> Pair:
    """The tables' first row that pairs mixer and backbone, with the changes asked for, counted as in Table 4."""
    known: dict[str, list[str]] = {}
    order = sorted(places.known_names(), key=lambda name: (not name.startswith("table"), name))
    counting = sound_specs(places, COUNTED_AS)[0].structure.counting
    for spec in (sound_specs(places, name)[0] for name in order):
        stage = next((name for name in ("cost", "pretrained_cost") if name in spec.stages), None)
        for row in spec.rows if stage and "paper" in spec.structure.scales else []:
            backbone, name = slug(row.title[0]), (row.model or {}).get("mixer", {}).get("name")
            known.setdefault(backbone, []).append(str(name))
            if backbone == slug(asked.backbone) and name == mixer:
                head = {**spec.structure.model.get("head", {}), **(row.model or {}).get("head", {})}
                changes = (f"model.head={json.dumps(head)}", *asked.changes)
                plan, problems = resolve_runs(
                    spec, "paper", Choice(rows=(row.key,), kinds=("profile",), changes=changes)
                )
                if problems:
                    raise ConfigError(*problems)
                config = next(run.config for (_, at, _), run in plan.needs.items() if at == stage)
                assert config.model is not None
                rule = {**counting, **(config.task.options if spec.name == COUNTED_AS else {})}
                return Pair(row.title[0], config.model, config.data.image_size, CountingRule(**rule))
    if slug(asked.backbone) not in known:
        raise ConfigError(
            Problem(
                f"--backbone {asked.backbone}: no table has it", (), suggest(slug(asked.backbone), known, "backbones")
            )
        )
    mixers = [name for name in dict.fromkeys(known[slug(asked.backbone)]) if name != "None"]
    raise ConfigError(
        Problem(
            f"--mixer {mixer}: no table pairs it with {asked.backbone}", (), suggest(mixer, [*mixers, "all"], "mixers")
        )
    )


def _problems(pair: Pair) -> list[Problem]:
    try:
        check_model(pair.model, pair.image_size)
    except ConfigError as error:
        return list(error.within("--set", "model").problems)
    return []


def _profile(pair: Pair, size: tuple[int, int], asked: Asked, device: torch.device) -> Profile:
    with torch.device("meta"):
        model = build_model(pair.model, pair.image_size)
    height, width = size
    stride = model.strides[-1]
    if height % stride or width % stride:
        near = [max(stride, round(side / stride) * stride) for side in size]
        raise ConfigError(
            f"--res {height}x{width}: {pair.backbone} needs multiples of {stride} pixels, as in {near[0]}x{near[1]}"
        )
    counted = count(model, size, pair.rule)
    least = counted.product_bytes if asked.mode == "train" else counted.largest_bytes
    measured, state = _measure(pair, size, asked, device, asked.batch * least + 4 * counted.params)
    costs: dict[str, Any] = {
        key: value for key, value in asdict(counted).items() if not key.endswith("_bytes") and key != "mlp_gflops"
    }
    assert pair.model.mixer is not None
    return Profile(
        mixer=pair.model.mixer.name,
        backbone=pair.backbone,
        head=pair.model.head.name,
        resolution=height if height == width else f"{height}x{width}",
        tokens=(height // model.strides[0]) * (width // model.strides[0]),
        batch=asked.batch,
        precision=asked.precision,
        mode=asked.mode,
        device=device_name(str(device)),
        **costs,
        **measured,
        state=state,
    )


def _measure(
    pair: Pair, size: tuple[int, int], asked: Asked, device: torch.device, least_bytes: int
) -> tuple[dict[str, Any], str]:
    """Latency and memory, or None where they were not asked for or the memory does not suffice."""
    nothing: dict[str, Any] = dict.fromkeys(("latency_s", "latency_spread_s", "images_per_s", "peak_memory_mib"))
    if not asked.latency:
        return nothing, "measured"
    available = available_bytes(device)
    if available is not None and least_bytes > available + held_by_others_bytes(device):
        return nothing, "out_of_memory"
    try:
        torch.manual_seed(0)
        model: Model = build_model(pair.model, pair.image_size)
        images = torch.randn(asked.batch, 3, *size).to(device)
        found = measure(model, images, asked.mode == "train", asked.precision, BUDGET_S, MOST_PASSES)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if (others := held_by_others_bytes(device)) > 0:
            raise DataError(
                f"the GPU has no memory left while other processes hold {others / 2**30:.1f} GiB of it\n"
                "  repeat the command once they have ended; --no-latency needs none"
            ) from error
        return nothing, "out_of_memory"
    return {**asdict(found), "images_per_s": asked.batch / found.latency_s}, "measured"


def save_profiles(profiles: Sequence[Profile], folder: Path) -> list[Path]:
    """profile.csv, profile.md and, for several resolutions, a plot of the mixers' cost against tokens."""
    header = list(asdict(profiles[0]))
    lines = [["" if value is None else str(value) for value in asdict(p).values()] for p in profiles]
    grid = [[md(part) for part in header], ["---"] * len(header), *([md(part) for part in line] for line in lines)]
    files = {
        "profile.csv": csv_lines([header, *lines]),
        "profile.md": "\n".join("| " + " | ".join(line) + " |" for line in grid) + "\n",
    }
    for name, text in files.items():
        write_atomic(folder / name, text)
    curves = _curves(profiles)
    if curves:
        from afno_repro.visualize.curves import cost_curves

        drawn = [folder / f"profile{ending}" for ending in FORMATS]
        cost_curves(curves, "GFLOPs of the mixers, counted in full", drawn)
        return [*(folder / name for name in files), *drawn]
    return [folder / name for name in files]


def _curves(profiles: Sequence[Profile]) -> dict[str, tuple[list[float], list[float]]]:
    """(tokens, mixer GFLOPs in full) of every mixer profiled at two numbers of tokens or more."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for p in sorted(profiles, key=lambda p: p.tokens):
        tokens, cost = curves.setdefault(p.mixer, ([], []))
        tokens.append(p.tokens)
        cost.append(p.mixer_gflops_full)
    return {name: (tokens, cost) for name, (tokens, cost) in curves.items() if len(set(tokens)) > 1}
