"""A whole training step: `python -m benchmarks.train [--rounds 7] [--batch 4] [--threads 1] [--device cpu]`.

The reference is a network of ViT-S/4's size on 64 x 64 pixels whose mixers are the literal layer, in a plain loop: the
batch's loss, its gradients, clipping, an optimiser that walks through the parameters, the loss as a number. Beside it
our loop with every mixer. Before anything is timed, reference and our AFNO are held to the same loss and gradients in
float64: an error above TOLERANCE ends it with 1.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from afno_repro.config import ModelConfig, Part, TrainConfig
from afno_repro.models import build_model
from afno_repro.precision import set_precision
from afno_repro.runs.provenance import device_name
from afno_repro.tasks import Batch
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.training.loop import optimise
from afno_repro.training.optim import make_optimizer
from benchmarks.literal import LiteralAFNO
from benchmarks.side_by_side import timed, write

SIDE, TOLERANCE = 64, 1e-4
TRUNK = Part("vit", {"patch_size": 4, "embed_dim": 384, "depth": 12, "mlp_ratio": 4, "skips": 2})
AFNO = Part("afno", {"num_blocks": 16, "sparsity_threshold": 0.1, "keep": 1.0, "bias": "identity", "init_std": 0.02})
MIXERS = {
    "AFNO": AFNO,
    "AFNO keep 0.5": replace(AFNO, options={**AFNO.options, "keep": 0.5}),
    "GFN": Part("gfn", {}),
    "long-short": Part("long_short", {"num_heads": 6, "window": 4, "rank": 8}),
    "self-attention": Part("self_attention", {"num_heads": 6}),
}
RECIPE = TrainConfig(
    epochs=1,
    batch_size=4,
    optimizer="adamw",
    schedule="constant",
    lr=1e-4,
    min_lr=0.0,
    warmup={"steps": 0},
    head_lr_factor=1.0,
    weight_decay=0.01,
    decay="all",
    clip_norm=1.0,
    precision="float32",
    augment={"name": "none"},
    eval_every=1,
)


def network(mixer: Part) -> nn.Module:
    """The same weights every time."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(TRUNK, mixer, Part("inpainting", {})), SIDE)
    for parameter in model.get_submodule("head").parameters():
        nn.init.normal_(parameter, std=0.02)  # a zero head gives the trunk no gradients
    return model


def literal_network() -> nn.Module:
    """The same network with the literal layer."""
    model = network(AFNO)
    for block in model.get_submodule("backbone.blocks").children():
        block.mixer = LiteralAFNO(block.mixer)  # type: ignore[arg-type, assignment]
    return model


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, task: Inpainting, batch: Batch) -> float:
    """One step as a tutorial has it."""
    optimizer.zero_grad()
    loss = mean_loss(model, task, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def mean_loss(model: nn.Module, task: Inpainting, batch: Batch) -> Tensor:
    """The loss of one batch."""
    return task.loss(model, batch) / task.weight(batch)


def check(task: Inpainting, batch: Batch) -> None:
    """End the benchmark where the literal network's loss or gradients are not ours."""
    gradients = []
    for model in (network(AFNO).double(), literal_network().double()):
        loss = mean_loss(model, task, (batch[0].double(), batch[1]))
        gradients.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    errors = [
        float((one - other).abs().max() / one.abs().max().clamp(min=1e-12))
        for one, other in zip(*gradients, strict=True)
    ]
    if max(errors) > TOLERANCE:
        sys.exit(f"loss or gradients differ by {max(errors):.1e}")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("--rounds", 7), ("--batch", 4), ("--threads", 1)):
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    torch.set_num_threads(asked.threads)
    set_precision(RECIPE.precision, device)
    task = Inpainting(SIDE, {"grid": "tokens", "patch_size": 4, "steps": 256})
    torch.manual_seed(0)
    batch = (torch.rand(asked.batch, 3, SIDE, SIDE), torch.rand(asked.batch, SIDE, SIDE) < 0.4)
    check(task, batch)
    batch = (batch[0].to(device), batch[1].to(device))
    literal = literal_network().to(device)
    slow = torch.optim.AdamW(literal.parameters(), lr=RECIPE.lr, weight_decay=RECIPE.weight_decay, foreach=False)
    steps: dict[str, Callable[[], float]] = {
        "literal AFNO, plain loop": partial(plain_step, literal, slow, task, batch)
    }
    compiled = network(AFNO)
    compiled.get_submodule("backbone").compile()
    networks = {name: network(mixer) for name, mixer in MIXERS.items()} | {"AFNO, --compile": compiled}
    for name, model in networks.items():
        model.to(device)
        steps[name] = partial(optimise, model, make_optimizer(model, RECIPE), task, [batch], RECIPE)
    lines = []
    for name, found in timed(steps, asked.rounds, device).items():
        lines.append(
            [name, f"{asked.batch / found.median_s:.1f}", f"{found.ratio:.2f}", f"{found.low:.2f}-{found.high:.2f}"]
        )
    title = f"A training step of a ViT-S/4 on {SIDE} x {SIDE} pixels, batch {asked.batch}"
    print(
        write("train", device_name(asked.device), title, ["network", "images/s", "ratio", "10-90%"], lines).read_text()
    )


if __name__ == "__main__":
    main()
