"""Optimiser and learning-rate schedule of a TrainConfig."""

import math

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from afno_repro.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Adam (weight decay as an L2 term) or AdamW (decoupled) over all parameters; the head has its own rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("head."), decays(name, parameter, config.decay)), []).append(parameter)
    kind = {"adam": Adam, "adamw": AdamW}[config.optimizer]
    optimizer: Optimizer = kind(
        [
            {
                "params": parameters,
                "lr_factor": config.head_lr_factor if head else 1.0,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (head, decayed), parameters in groups.items()
        ],
        lr=config.lr,
        fused=True,
    )
    return optimizer


def decays(name: str, parameter: nn.Parameter, reached: str) -> bool:
    """Whether weight decay reaches a parameter.

    GFN's recipe (Rao et al. 2021) leaves out vectors, which norms and layers' biases are, and positions; spectral
    weights and their biases have more dimensions. SegFormer's (Xie et al. 2021) leaves out norms, positions and all
    biases.
    """
    if reached == "all":
        return True
    spectral_bias = name.endswith((".b1", ".b2"))
    biases_too = reached == "all_but_norms_biases_and_positions"
    return parameter.ndim > 1 and "position" not in name and not (biases_too and spectral_bias)


def learning_rate(config: TrainConfig, step: int, total: int, warmup: int) -> float:
    """The rate of this step (0-based) of `total`, of which `warmup` rise linearly.

    1. warm-up: from lr / warmup up to lr; 2. cosine: from lr down to min_lr at the end; 3. constant: lr.
    """
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    progress = (step - warmup) / max(total - warmup, 1)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every group the rate times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def warmup_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Length of the linear rise in steps."""
    return config.warmup.get("steps", 0) + config.warmup.get("epochs", 0) * steps_per_epoch
