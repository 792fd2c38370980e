"""Training by two processes: `python -m benchmarks.together [--rounds 7] [--batch 8]`.

The step of benchmarks/train.py with AFNO on the same batch, by one process and shared by two, one thread each, in
turns. `efficiency` is the ratio over two: what is missing to one is the exchange of gradients, and the memory that both
cores share.
"""

import argparse
import os
import statistics
import tempfile
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import torch

from afno_repro.runs.provenance import device_name
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.training import engine
from afno_repro.training.loop import optimise
from afno_repro.training.optim import make_optimizer
from benchmarks.side_by_side import once, write
from benchmarks.train import AFNO, RECIPE, SIDE, network

PROCESSES = 2


def work(
    rank: int, address: str, batch: int, rounds: int, parent: int, found: "Queue[list[tuple[float, float]]]"
) -> None:
    """One process: in turns a step of the whole batch by process 0 alone, and one that both share; seconds of each."""
    engine.join(engine.Place(rank, PROCESSES, rank, address, parent), "cpu")
    torch.set_num_threads(1)
    task = Inpainting(SIDE, {"grid": "tokens", "patch_size": 4, "steps": 256})
    torch.manual_seed(0)
    images, masks = torch.rand(batch, 3, SIDE, SIDE), torch.rand(batch, SIDE, SIDE) < 0.4
    mine = slice(rank * batch // PROCESSES, (rank + 1) * batch // PROCESSES)
    model = network(AFNO)
    shared = engine.share(model, torch.device("cpu"))
    optimizer = make_optimizer(model, RECIPE)
    lonely = network(AFNO)
    updates = make_optimizer(lonely, RECIPE)
    times = []
    for _ in range(rounds + 1):
        engine.agreed(None)
        alone = once(lambda: plain(lonely, updates, task, images, masks), images.device) if rank == 0 else 0.0
        engine.agreed(None)
        times.append(
            (
                alone,
                once(lambda: optimise(shared, optimizer, task, [(images[mine], masks[mine])], RECIPE), images.device),
            )
        )
    if rank == 0:
        found.put(times[1:])
    engine.leave()


def plain(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Inpainting,
    images: torch.Tensor,
    masks: torch.Tensor,
) -> None:
    """The same step without the others: forward, backward, clip, update."""
    optimizer.zero_grad(set_to_none=True)
    (task.loss(model, (images, masks)) / task.weight((images, masks))).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def main() -> None:
    """Start both processes, measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        found: Queue[list[tuple[float, float]]] = context.Queue()
        address = f"file://{Path(folder) / 'meeting'}"
        processes = [
            context.Process(target=work, args=(rank, address, asked.batch, asked.rounds, os.getpid(), found))
            for rank in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        times = found.get(timeout=600)
        for process in processes:
            process.join()
    gains = sorted(alone / together for alone, together in times)
    line = [f"{asked.batch / statistics.median(each):.1f}" for each in zip(*times, strict=True)]
    gain = statistics.median(gains)
    lines = [
        [
            *line,
            f"{gain:.2f}",
            f"{gains[len(gains) // 10]:.2f}-{gains[-1 - len(gains) // 10]:.2f}",
            f"{100 * gain / PROCESSES:.0f}%",
        ]
    ]
    header = ["images/s of one process", "images/s of two", "ratio", "10-90%", "efficiency"]
    title = (
        f"A training step of a ViT-S/4 with AFNO on {SIDE} x {SIDE} pixels, batch {asked.batch}, shared by two "
        "processes"
    )
    print(write("together", device_name("cpu"), title, header, lines).read_text())


if __name__ == "__main__":
    main()
