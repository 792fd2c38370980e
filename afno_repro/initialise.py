"""How linear layers start, other than PyTorch's way."""

from torch import nn


def initialise_linear(module: nn.Module, std: float | None) -> None:
    """Give every linear layer in a module normal weights of this deviation, cut off at 2, and biases of zero.

    None leaves them as PyTorch starts them, uniform within one over the root of their inputs' number.
    """
    if std is None:
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
