"""The committed specs, and small ones for tests."""

from pathlib import Path

from afno_repro.spec.reader import load_spec
from afno_repro.spec.spec import Spec

ROOT = Path(__file__).parents[1]


# The paper's own specs, whatever else lies beside them.
PAPER = (
    "table1",
    "table2",
    "table3",
    "table4",
    "table5",
    "table6",
    "fig1",
    "fig4_blocks",
    "fig4_sparsity",
    "fig5",
    "fig6",
)


def all_specs() -> list[Spec]:
    return [load_spec(ROOT / "experiments" / f"{name}.yaml") for name in PAPER]


SMALL = """\
title: A small table
group: inpainting
row_title: [Backbone, Mixer]
counting: {attention_products: 1, conv_bias: false, inner_norm: 0, upsampling: 0, mixer_fft: 0.0}
model:
  backbone: {name: vit, patch_size: 4, embed_dim: 8, depth: 1, mlp_ratio: 2, skips: 2}
  head: {name: inpainting}
stages:
  cost:
    kind: profile
    task: {name: count}
    data: {image_size: 16}
  pretrain:
    kind: pretrain
    task: {name: inpainting, walk: {grid: tokens, patch_size: 4, steps: 16}}
    data: {name: photos, image_size: 16, fraction: 1.0, seed: 0, train: [coffee], test: [flower],
           train_crops: 24, test_crops: 8, side: [32, 200]}
    train:
      epochs: 3
      batch_size: 4
      optimizer: adamw
      schedule: cosine
      lr: 1e-3
      min_lr: 1e-5
      warmup: {steps: 2}
      head_lr_factor: 1.0
      weight_decay: 0.01
      clip_norm: 1.0
      precision: float32
      augment: {name: flip}
      eval_every: 1
columns:
  - {key: gflops, title: GFLOPs, source: cost/gflops, at: paper, digits: 4, higher_is_better: false}
  - {key: psnr, title: PSNR, unit: dB, source: pretrain/psnr, digits: 2, higher_is_better: true}
rows:
  - key: gfn
    title: [ViT, GFN]
    model: {mixer: {name: gfn}}
    paper: {gflops: 0.5, psnr: 20.0}
  - key: afno
    title: [ViT, AFNO]
    model: {mixer: {name: afno, num_blocks: 2, sparsity_threshold: 0.01, keep: 1.0, bias: identity, init_std: 0.02}}
    paper: {gflops: 0.6, psnr: 21.0}
  - key: fill_mean
    title: [none, mean fill]
    printed: false
    model: null
    cost: null
    pretrain: {kind: baseline, task: {fill: mean}, train: null}
scales:
  tiny: {seeds: [0]}
  smoke: {seeds: [0], pretrain: {train: {epochs: 1}}}
  paper: {seeds: [0, 1], model: {backbone: {embed_dim: 16}}}
claims:
  - {claim: AFNO beats GFN, where: here, column: psnr, better: afno, worse: gfn, by: 0.0}
assumptions:
  - {key: pretrain.train.batch_size, choice: 4, why: Nothing is said.}
"""


def write_spec(root: Path, text: str = SMALL, name: str = "small") -> Path:
    path = root / "experiments" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
