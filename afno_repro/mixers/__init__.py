"""Token mixers: (B, H, W, C) -> (B, H, W, C). One mixer, one file, one equation; a spec names them by key."""

from torch import nn

from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.afno_static import AFNOStatic
from afno_repro.mixers.efficient_self_attention import EfficientSelfAttention
from afno_repro.mixers.fno import FNO
from afno_repro.mixers.gfn import GFN
from afno_repro.mixers.long_short import LongShort
from afno_repro.mixers.self_attention import SelfAttention

MIXERS: dict[str, type[nn.Module]] = {
    "self_attention": SelfAttention,
    "efficient_self_attention": EfficientSelfAttention,
    "long_short": LongShort,
    "gfn": GFN,
    "fno": FNO,
    "afno": AFNO,
    "afno_static": AFNOStatic,
}

__all__ = ["AFNO", "FNO", "GFN", "MIXERS", "AFNOStatic", "EfficientSelfAttention", "LongShort", "SelfAttention"]
