"""Training steps of a table's rows, predicted and measured: `python -m benchmarks.steps [--tables table2 table4]`.

Every row at `--scale`, in every precision, with `--images` of each table at a time, random ones; AFNO in each of FORMS,
the first of which is how it trains. `predicted` is a roofline: each operator of the very step takes as long as its
bytes at the rate of a copy here, or as its multiplications at the rate of a matrix product here, whichever is longer;
it is no measurement, and there is none of the Triton kernel, which no operator shows. The table is written after every
row. `kernels` lists what four of the steps spend their time in. What `--seconds` leave no time for is told.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from afno_repro.backbones.layers import Block
from afno_repro.config import RunConfig
from afno_repro.memory import out_of_memory, peak_mib, start_peak
from afno_repro.mixers import AFNO
from afno_repro.models import build_model
from afno_repro.precision import set_precision
from afno_repro.runs.devices import find_device
from afno_repro.runs.provenance import device_name
from afno_repro.spec.places import Places, sound_specs
from afno_repro.spec.plan import Choice, plan_runs
from afno_repro.tasks import TASKS, Batch
from afno_repro.training.loop import optimise
from afno_repro.training.optim import make_optimizer
from benchmarks.rates import SIZES, Rates, rates
from benchmarks.side_by_side import NO_TIME, once, paced, write

ROOT = Path(__file__).parents[1]
STAGES = {"table2": "pretrain", "table4": "finetune", "table6": "pretrain"}
PRECISIONS = ("float32", "tf32", "bf16")
FORMS = ("as trained", "products", "kernel")  # FFTs on a GPU; matrix products alone; the Triton kernel between FFTs
PROFILED, TOP = ("self_attention", "afno", "efficient_self_attention", "afno_100"), 15
STEPS_SHARE = 0.85  # of the time that there is, before the kernels'
UNMOVED = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "_unsafe_view", "resize_"}
HEADER = ["table", "row", "precision", "form", "images"]
HEADER += ["images/s, predicted", "images/s, measured", "measured / predicted", "GPU, measured MiB"]


class Roofline(TorchDispatchMode):
    """Inside, adds up the seconds that each operator should take at a device's rates."""

    def __init__(self, at: Rates, precision: str):
        super().__init__()
        self.at, self.precision, self.seconds = at, precision, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view or func.overloadpacket.__name__ in UNMOVED:
            return out
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        counted = flop_registry.get(func.overloadpacket)
        operations = counted(*args, **(kwargs or {}), out_val=out) if counted else 0
        rate = self.at.flops_per_s[self.kind(tensors)]
        complex_ones = 4 if any(tensor.is_complex() for tensor in tensors) else 1
        moved = sum(tensor.nbytes for tensor in tensors) / self.at.bytes_per_s
        self.seconds += max(moved, operations * complex_ones / rate)
        return out

    def kind(self, tensors: list[Tensor]) -> str:
        """The rate that an operator's products have."""
        if any(tensor.is_complex() for tensor in tensors):
            return "complex64"
        if any(tensor.dtype == torch.bfloat16 for tensor in tensors):
            return "bf16"
        return "float32" if self.precision == "float32" else "tf32"


def batch_of(config: RunConfig, images: int, device: torch.device) -> Batch:
    """Random images, and masks or classes of their pixels."""
    side = config.data.image_size
    pixels = torch.rand(images, 3, side, side, device=device)
    if config.task.name == "inpainting":
        return pixels, torch.rand(images, side, side, device=device) < 0.4
    return pixels, torch.randint(0, 2, (images, side, side), device=device)


def configs(table: str, scale: str) -> dict[str, RunConfig]:
    """The trainings of a table by row."""
    spec = sound_specs(Places(ROOT, ROOT / "runs"), table)[0]
    needs = plan_runs(spec, scale, Choice()).needs
    return {row: run.config for (row, stage, _), run in needs.items() if stage == STAGES[table] and run.config.model}


def forms(config: RunConfig, precision: str, device: torch.device) -> tuple[str, ...]:
    """Those that a row can take: the kernel multiplies in tf32 or bf16."""
    assert config.model is not None
    if config.model.mixer is None or config.model.mixer.name != "afno":
        return FORMS[:1]
    return FORMS if device.type == "cuda" and precision != "float32" else FORMS[:2]


def take(form: str, model: nn.Module, precision: str) -> None:
    """Have every AFNO of a network mix in one form."""
    for block in [module for module in model.modules() if isinstance(module, Block) and isinstance(module.mixer, AFNO)]:
        if form == "products":
            block.mixer.by_transforms = block.mixer.by_products  # type: ignore[assignment]
        elif form == "kernel":
            from benchmarks.cuda import FusedAFNO  # Triton comes with torch's CUDA builds alone

            block.mixer = FusedAFNO(block.mixer, "bf16" if precision == "bf16" else "float32")  # type: ignore[arg-type]


def built(config: RunConfig) -> nn.Module:
    """The network of a row, with the weights of seed 0, on the CPU."""
    assert config.model is not None
    torch.manual_seed(0)
    return build_model(config.model, config.data.image_size)


def step_of(
    model: nn.Module,
    config: RunConfig,
    precision: str,
    images: int,
    device: torch.device,
    change: Callable[[nn.Module], Any] = lambda model: None,
) -> Callable[[], Any]:
    """A step of a row's training with a copy of its network, changed, and the optimiser's moments made."""
    assert config.train is not None
    set_precision(precision, device)
    torch.manual_seed(0)
    recipe, side = replace(config.train, precision=precision), config.data.image_size
    model = copy.deepcopy(model).to(device)
    change(model)
    task = TASKS[config.task.name](side, **config.task.options)
    step = partial(optimise, model, make_optimizer(model, recipe), task, [batch_of(config, images, device)], recipe)
    step()
    return step


def measured(
    model: nn.Module,
    config: RunConfig,
    precision: str,
    form: str,
    images: int,
    rounds: int,
    device: torch.device,
    at: Rates,
) -> list[str]:
    """The cells of one row, precision and form; where memory does not suffice that is said in place of a time."""
    on_gpu = device.type == "cuda"
    try:
        step = step_of(model, config, precision, images, device, partial(take, form, precision=precision))
        with Roofline(at, precision) as roofline:
            step()
        start_peak(device)
        took = statistics.median(once(step, device) for _ in range(rounds))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return ["", "out of memory", "", ""]
    predicted, peak = images / roofline.seconds, f"{peak_mib(device):.0f}" if on_gpu else ""
    told = ["", ""] if form == "kernel" else [f"{predicted:.1f}", f"{images / took / predicted:.2f}"]
    return [told[0], f"{images / took:.1f}", told[1], peak]


def kernels(config: RunConfig, images: int, device: torch.device) -> list[list[str]]:
    """What a step in bf16 spends most time in: name, calls, milliseconds."""
    step, on_gpu = step_of(built(config), config, "bf16", images, device), device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    spent = f"self_{'device' if on_gpu else 'cpu'}_time_total"  # microseconds
    found = sorted(profiled.key_averages(), key=lambda event: -getattr(event, spent))[:TOP]
    return [[e.key.replace("|", "/")[:100], str(e.count), f"{getattr(e, spent) / 1000:.2f}"] for e in found]


def main() -> None:
    """Measure row by row, then look into four of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--tables", nargs="+", default=["table2", "table4"], choices=list(STAGES))
    parser.add_argument("--images", nargs="+", type=int, default=[16, 1], help="at a time, for each table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=inf, help="within which lines are begun that can end")
    asked = parser.parse_args()
    ends = time.monotonic() + asked.seconds
    device = torch.device(find_device(asked.device))
    at, name = rates(device, *SIZES[device.type]), device_name(device.type)
    trained = [
        (t, row, c, n)
        for t, n in zip(asked.tables, asked.images, strict=False)
        for row, c in configs(t, asked.scale).items()
    ]
    lines, spent, title = list[list[str]](), list[list[str]](), f"Training steps at {asked.scale} scale"
    network = lru_cache(maxsize=1)(lambda i: built(trained[i][2]))
    cases = [(i, p, form) for i, case in enumerate(trained) for p in PRECISIONS for form in forms(case[2], p, device)]
    for (i, precision, form), begins in paced(cases, STEPS_SHARE * (ends - time.monotonic())):
        table, row, config, images = trained[i]
        cells = ["", NO_TIME, "", ""]
        if begins:
            cells = measured(network(i), config, precision, form, images, asked.rounds, device, at)
        lines.append([table, row, precision, form, str(images), *cells])
        print(write("steps", name, title, HEADER, lines), row, flush=True)
    looked = [case for case in trained if case[1] in PROFILED]
    for (table, row, config, images), begins in paced(looked, ends - time.monotonic()):
        found = kernels(config, images, device) if begins else [[NO_TIME, "", ""]]
        spent += [[table, row, *line] for line in found]
        write("kernels", name, f"{title}, bf16", ["table", "row", "kernel", "calls", "ms"], spent)


if __name__ == "__main__":
    main()
