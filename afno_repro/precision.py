"""In which precision matrices are multiplied: float32, tf32 or bf16 (mixed: what needs float32 keeps it).

PyTorch has a flag for products and one for convolutions, whose defaults differ and have changed: both are always set.
"""

from typing import Any

import torch


def set_precision(precision: str, device: torch.device) -> None:
    """Let float32 products and convolutions on a GPU round their factors to TF32 (10 bits), or not.

    Under bf16 what stays in float32 may. A CPU multiplies float32 as it is, and so does a GPU that has no TF32.
    """
    tf32 = precision != "float32" and device.type == "cuda" and _gpu_has_tf32()
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def _gpu_has_tf32() -> bool:
    """Whether the GPU has TF32, as one that is only thought of has."""
    return not torch.cuda.is_available() or torch.cuda.is_tf32_supported()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision where the spec says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def rounded() -> dict[str, Any]:
    """Which products of float32 are rounded to TF32 now, for a record."""
    return {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32}
