"""Any form of a mixer on any device, whatever grid, width and device would get."""

import torch

from afno_repro.mixers import afno, gfn, spectral
from afno_repro.mixers.forms import pair, per_mode

FORMS = ("products", "transforms", "planes", "gpu", "gpu-tf32")


def use(form, monkeypatch):
    """Have AFNO take one of its forms; those of a GPU run on a CPU, too."""
    monkeypatch.setattr(afno, "prefers_products", lambda x, modes: torch.compiler.is_compiling() or form == "products")
    monkeypatch.setattr(afno, "prefers_planes", lambda x, width: form == "planes")
    for module in (afno, per_mode):
        monkeypatch.setattr(module, "prefers_real", lambda x: form == "gpu-tf32")
    if form.startswith("gpu"):
        as_on_a_gpu(monkeypatch)


def as_on_a_gpu(monkeypatch):
    """Have the transforms, their scale and GFN's layout be those of a GPU."""
    for module in (spectral, pair, gfn):
        monkeypatch.setattr(module, "on_gpu", lambda x: True)
