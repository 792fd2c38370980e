"""Whole runs on fake CUDA tensors, on a machine without a GPU: what would fail or wait on one does so here.

LD_PRELOAD=no_accelerator.so python -m tests.fake_cuda [--every] [--planted]

The tensors have shapes, types and devices, and no values (torch's FakeTensorMode; tests/no_accelerator.c says what is
preloaded). Runs at smoke size are trained, evaluated and drawn by the commands' own code: as few of them as have every
mixer, backbone, head and task, or `every` one. Data are read as ever. A number that leaves a tensor is zero, and that
it leaves one within a training step is a fault, as is a copy between host and device that makes the host wait.
`planted` puts faults into the code, one after the other, and says which are found.
"""

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from afno_repro.metrics import PSNR, MeanIoU
from afno_repro.mixers import AFNO
from afno_repro.runs import executors
from afno_repro.spec.plan import Run, plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.training import evaluation, loop
from afno_repro.visualize import clustering
from tests.machine import machine_at
from tests.specs import ROOT

PRECISIONS = ("bf16", "float32")
Case = tuple[Run, str]
COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)


class Waited(Exception):
    """The host would wait for the device in the middle of a step."""


class Step(TorchDispatchMode):
    """A training step, in which nothing may wait for the device."""

    running = False

    def __enter__(self) -> "Step":
        Step.running = True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        Step.running = False
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function.overloadpacket in COPIES and not ((kwargs or {}).get("non_blocking") or args[2:3] == (True,)):
            kinds = {each.device.type for each in (*args[:2], made) if isinstance(each, torch.Tensor)}
            if kinds == {"cpu", "cuda"}:
                raise Waited(f"{function} between host and device")
        return made


def values(tensor: FakeTensor) -> Any:
    """Zeros in place of the values, to where they can be seen."""
    if Step.running and tensor.device.type == "cuda":
        raise Waited("a number leaves the device")
    kinds = {torch.uint8: np.uint8, torch.bool: bool, torch.int64: np.int64, torch.float64: np.float64}
    return np.zeros(tuple(tensor.shape), kinds.get(tensor.dtype, np.float32))


def as_numpy(tensor: FakeTensor) -> Any:
    if tensor.device.type != "cpu":
        raise TypeError("can't convert a CUDA tensor to numpy")
    return values(tensor)


def applied(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
    """Module._apply, for parameters that are fake: torch's own would swap them, which they do not allow."""
    for child in module.children() if recurse else ():
        child._apply(change)
    for name, weight in module._parameters.items():
        if weight is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(change(weight), weight.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


def counted(x: torch.Tensor, weights: None = None, minlength: int = 0) -> torch.Tensor:
    """torch.bincount where no value lies beyond `minlength`: its shape depends on values."""
    return torch.zeros(minlength, dtype=torch.int64, device=x.device)


def really(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that reads data and prepares them, with real tensors; what it gives is fake."""

    def run(*args: Any, **options: Any) -> Any:
        mode = detect_fake_mode()
        with unset_fake_temporarily():
            found = function(*args, **options)
            found = list(found) if isinstance(found, Iterator) else found
        return found if mode is None else tree_map_only(torch.Tensor, mode.from_tensor, found)

    return run


def halves(grid: Sequence[int]) -> Any:
    """Two regions of a grid."""
    return (np.indices(grid)[0] < grid[0] // 2).astype(np.uint8)


def written(weights: dict[str, torch.Tensor]) -> bytes:
    """Weights as a file, which has to come from the host."""
    assert {value.device.type for value in weights.values()} == {"cpu"}
    return b""


def optimised(*args: Any) -> torch.Tensor:
    with Step():
        return OPTIMISE(*args)


OPTIMISE = loop.optimise
PATCHES: list[tuple[Any, str, Any]] = [
    (FakeTensor, "numpy", as_numpy),
    (FakeTensor, "tolist", lambda tensor: values(tensor).tolist()),
    (FakeTensor, "item", lambda tensor: values(tensor).item()),
    (FakeTensor, "__float__", lambda tensor: float(values(tensor).item())),
    (FakeTensor, "__int__", lambda tensor: int(values(tensor).item())),
    (FakeTensor, "__bool__", lambda tensor: bool(values(tensor).item())),
    (nn.Module, "_apply", applied),
    (torch, "bincount", counted),
    (torch.cuda, "current_device", lambda: 0),
    (torch.cuda, "set_device", lambda device: None),
    (torch.cuda, "reset_peak_memory_stats", lambda device: None),
    (torch.cuda, "is_bf16_supported", lambda *_: True),
    (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),  # autocast asks
    (executors, "device_name", lambda device: "a GPU"),
    (executors, "load_data", really(executors.load_data)),
    (executors, "fed", really(executors.fed)),
    (executors, "first_images", really(executors.first_images)),
    (executors, "weights_of", lambda digest, machine: {}),
    (executors, "load_weights", lambda model, weights: None),
    (loop, "loader", really(loop.loader)),
    (evaluation, "loader", really(evaluation.loader)),
    (loop, "optimise", optimised),
    (loop, "load_weights", lambda model, weights: None),
    (loop, "save", lambda *_: None),
    (loop, "tensors_to_bytes", written),
    (MeanIoU, "compute", lambda self: dict.fromkeys(self.keys, 0.0)),  # of counts, on the host
    (clustering, "cluster", lambda tokens, clusters, neighbours: halves(tokens.shape[:2])),  # scikit-learn's
    (clustering.Clusters, "regions_of", lambda self, image, label, grid: halves(grid)),  # scikit-image's
]


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, every tensor is fake, on a CPU or on CUDA."""
    with ExitStack() as stack:
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        for owner, name, value in PATCHES:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def features(run: Run, precision: str) -> set[str]:
    """What a run is there for; AFNO's form follows the precision."""
    model = run.config.model
    assert model is not None
    parts = {"backbone": model.backbone, "mixer": model.mixer, "head": model.head, "task": run.config.task}
    found = {f"{kind} {part.name}" for kind, part in parts.items() if part is not None}
    return found | ({f"afno in {precision}"} if "mixer afno" in found else set())


def every() -> list[Case]:
    """Every run of every spec at smoke size that trains a network, in each precision, or draws one."""
    found = dict[tuple[str, str], Case]()
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        for run in plan_runs(load_spec(path), "smoke").runs:
            precisions = {"visualize": ("float32",), "pretrain": PRECISIONS, "finetune": PRECISIONS}
            for precision in precisions.get(run.config.kind, ()):
                found.setdefault((run.digest, precision), (run, precision))
    return list(found.values())


def few(cases: Sequence[Case]) -> list[Case]:
    """The first cases with something new."""
    seen, chosen = set[str](), list[Case]()
    for case in cases:
        if not features(*case) <= seen:
            seen |= features(*case)
            chosen.append(case)
    return chosen


def done(run: Run, precision: str, root: Path) -> None:
    """Do a run as its command does, half of each batch at a time."""
    recipe = run.config.train and replace(run.config.train, precision=precision, epochs=1, eval_every=1)
    half = 1 if recipe is None else max(1, recipe.batch_size // 2)
    machine = machine_at(root, device="cuda", micro_batch=half)
    run = replace(run, config=replace(run.config, train=recipe))
    with TemporaryDirectory() as folder, warnings.catch_warnings(), fake_cuda():
        warnings.simplefilter("ignore")
        found = executors.EXECUTORS[run.config.kind](run, machine, Path(folder), lambda progress: None)
    assert found.metrics or found.arrays


def looked_at(cases: Sequence[Case], root: Path) -> int:
    """Do runs and say of each how it went; returns how many failed."""
    failed = 0
    for run, precision in cases:
        try:
            done(run, precision, root)
            print(f"ok {run.id}, {precision}: {', '.join(sorted(features(run, precision)))}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {run.id}, {precision}\n{traceback.format_exc()}", flush=True)
    return failed


def mixed(self: AFNO, x: torch.Tensor) -> torch.Tensor:
    return AFNO_FORWARD(self, x) + torch.zeros(x.shape)


def left_behind(self: AFNO, x: torch.Tensor) -> torch.Tensor:
    return AFNO_FORWARD(self, x) * torch.ones(x.shape[-1])


def asked(self: AFNO, x: torch.Tensor) -> torch.Tensor:
    return AFNO_FORWARD(self, x) if x.mean().item() == 0 else x


def gathered(self: Inpainting, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    images, masks = batch
    return (self.predict(model, images, masks) - images).square()[masks[:, None].expand_as(images)].sum()


def carried(self: Inpainting, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return INPAINTING_LOSS(self, model, batch) * torch.ones(()).to(batch[0].device)


def converted(self: PSNR, prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> None:
    prediction.numpy()


AFNO_FORWARD, INPAINTING_LOSS = AFNO.forward, Inpainting.loss
PLANTED: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "a CPU tensor is added to a CUDA one": (AFNO, "forward", mixed),
    "a factor of every channel stays on the CPU": (AFNO, "forward", left_behind),
    "a layer asks for a value": (AFNO, "forward", asked),
    "a loss gathers what a mask shows": (Inpainting, "loss", gathered),
    "a loss brings a number from the host": (Inpainting, "loss", carried),
    "a metric takes a CUDA tensor for a NumPy array": (PSNR, "update", converted),
}


def planted(cases: Sequence[Case], root: Path) -> int:
    """Do an inpainting of an AFNO with each fault in the code; returns how many were not found."""
    run = next(run for run, _ in cases if features(run, "") >= {"mixer afno", "task inpainting"})
    missed = 0
    for fault, patch in PLANTED.items():
        with mock.patch.object(*patch):
            try:
                done(run, "float32", root)
                missed += 1
                print(f"MISSED {fault}", flush=True)
            except Exception as error:
                print(f"found: {fault} ({type(error).__name__}: {str(error).splitlines()[0]})", flush=True)
    return missed


def main() -> None:
    """Do what was asked for; exits with 1 when a run failed, or a planted fault was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args()
    cases = every() if options.every else few(every())
    with TemporaryDirectory() as root:
        sys.exit((planted if options.planted else looked_at)(cases, Path(root)) > 0)


if __name__ == "__main__":
    main()
