"""What the kernels take of GPUs that are not here: `python -m benchmarks.kernel_sizes [--all] [--write]`.

Every kernel that `fused_block_mlp` launches for a shape, without gradients, with them and backward, is compiled for
CHIPS by the very launches, on tensors without memory. ptxas needs no GPU; what it decides is read from its machine
code. Shapes are SHAPES, one for each of the tiles, or `--all` of the specs at paper scale. `--write` puts the table
into docs/kernel.md, between its marks. Ends with 1 where something spills or needs more shared memory than a program
can have.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from afno_repro.config import ModelConfig
from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.forms.kernel import fused_block_mlp
from afno_repro.mixers.forms.tiles import Tiles, cut_of
from afno_repro.mixers.spectral import kept_modes
from afno_repro.models import build_model
from afno_repro.spec.places import Places, at_scale, sound_specs
from afno_repro.spec.plan import plan_runs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/kernel.md"
MARKS = "<!-- sizes -->\n", "<!-- /sizes -->\n"
PRECISIONS = ("float32", "bf16")
HEADER = ["blocks x channels", "products", "tiles", "kernel"]


class Chip(NamedTuple):
    """What a multiprocessor has (CUDA C++ programming guide, technical specifications by compute capability)."""

    name: str
    program_kib: int  # shared memory that one program can have
    shared_kib: int
    threads: int
    registers: int = 65536


CHIPS = {
    80: Chip("A100", 163, 164, 2048),
    89: Chip("RTX 4090, L40", 99, 100, 1536),
    90: Chip("H100, H200", 227, 228, 2048),
}


class Shape(NamedTuple):
    """Blocks, channels of a block, modes of an image."""

    blocks: int
    width: int
    modes: int


# Of the specs at paper scale one for each of the kernel's tiles.
SHAPES = [Shape(8, 12, 1624), Shape(16, 24, 1624), Shape(8, 64, 544), Shape(8, 96, 1624), Shape(1, 750, 1624)]


class Size(NamedTuple):
    """What a compiled kernel takes."""

    chip: int
    shape: Shape
    precision: str
    kernel: str
    registers: int  # of a thread
    spilled: int  # bytes of a thread
    shared_kib: float
    warps: int

    @property
    def programs(self) -> int:
        """How many a multiprocessor holds at once; each reserves a KiB of shared memory."""
        chip, threads = CHIPS[self.chip], 32 * self.warps
        by_registers = chip.registers // (-(-self.registers // 8) * 8 * threads)
        return min(by_registers, int(chip.shared_kib / (self.shared_kib + 1)), chip.threads // threads)

    @property
    def fault(self) -> str:
        """What does not hold, if anything."""
        spills = f"spills {self.spilled} bytes" if self.spilled else ""
        over = f"needs {self.shared_kib:.0f} KiB" if self.shared_kib > CHIPS[self.chip].program_kib else ""
        return ", ".join(filter(None, (spills, over)))


class Absent:
    """What Triton asks a driver while it compiles, answered for a chip that is not there."""

    def __init__(self, chip: int):
        self.target = GPUTarget("cuda", chip, 32)

    def get_current_target(self) -> GPUTarget:
        """The chip."""
        return self.target

    def get_current_device(self) -> int:
        """A number of its own, so that kernels of several chips are kept apart."""
        return int(self.target.arch)

    def get_current_stream(self, device: int) -> int:
        """None is needed."""
        return 0


@contextmanager
def only_compiled(chip: int) -> Iterator[list[tuple[str, Any]]]:
    """Inside, launches compile for a chip and run nothing: kernels by name, each once."""
    launch, active, seen = JITFunction.run, driver._active, dict[int, tuple[str, Any]]()
    found: list[tuple[str, Any]] = []

    def compile_alone(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        if id(kernel) not in seen:
            seen[id(kernel)] = (self.__name__, kernel)
            found.append(seen[id(kernel)])
        return kernel

    driver.set_active(Absent(chip))
    JITFunction.run = compile_alone
    try:
        yield found
    finally:
        JITFunction.run = launch
        driver.set_active(active)


def sizes(chip: int, shape: Shape, precision: str) -> list[Size]:
    """What every kernel of both passes takes."""
    blocks, width, modes = shape
    on: dict[str, Any] = {"device": "meta", "requires_grad": True}
    z = torch.empty(1, blocks, width, modes, dtype=torch.complex64, **on)
    w1, w2 = (torch.empty(blocks, width, width, 2, **on) for _ in range(2))
    b1, b2 = (torch.empty(blocks, width, 1, 2, **on) for _ in range(2))
    with only_compiled(chip) as found:
        with torch.no_grad():
            fused_block_mlp(z, w1, b1, w2, b2, 0.01, precision)
        s = fused_block_mlp(z, w1, b1, w2, b2, 0.01, precision)
        s.backward(torch.empty_like(s))
    return [Size(chip, shape, precision, name, *taken(kernel)) for name, kernel in found]


def sizes_of(shapes: Sequence[Shape]) -> list[Size]:
    """The same of several shapes, in both precisions, for every chip."""
    cases = [(chip, shape, precision) for shape in shapes for precision in PRECISIONS for chip in CHIPS]
    return [size for case in cases for size in sizes(*case)]


def taken(kernel: Any) -> tuple[int, int, float, int]:
    """Registers and spilled bytes of a thread, KiB of shared memory, warps."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        dump = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED):(\d+)", text)}
    # A kernel without calls and arrays of its own has a stack for spills alone.
    return used["REG"], used["STACK"], kernel.metadata.shared / 1024, kernel.metadata.num_warps


def paper_shapes() -> list[Shape]:
    """What the AFNOs of every spec get at paper scale, by width."""
    configs: dict[str, tuple[ModelConfig, int]] = {}
    for spec in at_scale(sound_specs(Places(ROOT, ROOT / "runs"), "all"), "paper"):
        for run in plan_runs(spec, "paper").needs.values():
            model, side = run.config.model, run.config.data.image_size
            if model is not None and model.mixer is not None and model.mixer.name == "afno":
                cut = [model.mixer.options[key] for key in ("num_blocks", "keep")]
                configs[repr((model.backbone, cut, side))] = model, side
    found = {shape for model, side in configs.values() for shape in shapes_of(model, side)}
    return sorted(found, key=lambda shape: (shape.width, shape))


def shapes_of(config: ModelConfig, image_size: int) -> set[Shape]:
    """What a network's AFNOs are given."""
    found = set()

    def note(mixer: AFNO, inputs: tuple[torch.Tensor, ...], _: Any) -> None:
        modes = kept_modes((inputs[0].shape[1], inputs[0].shape[2]), mixer.keep)
        found.add(Shape(mixer.num_blocks, mixer.w1.shape[1], (modes.low + modes.high) * modes.columns))

    with torch.device("meta"), torch.no_grad():
        model = build_model(config, image_size)
        for module in model.modules():
            if isinstance(module, AFNO):
                module.register_forward_hook(note)
        model(torch.empty(1, 3, image_size, image_size))
    return found


def table(found: Sequence[Size]) -> str:
    """Of kernels with the same tiles the most registers, spilled bytes and KiB, and the fewest programs."""
    groups: dict[tuple[str, ...], list[Size]] = {}
    for size in found:
        cut = cut_of(size.shape.width)
        told = named(cut.weights if size.kernel == "weight_kernel" else cut.layers)
        groups.setdefault((size.precision, told, size.kernel), []).append(size)
    chips = [f"sm_{chip}: {CHIPS[chip].name}" for chip in CHIPS]
    lines = [[*HEADER, *chips], ["---"] * (len(HEADER) + len(chips))]
    for (precision, told, kernel), group in groups.items():
        shapes = ", ".join(dict.fromkeys(f"{size.shape.blocks}x{size.shape.width}" for size in group))
        cells = [worst([size for size in group if size.chip == chip]) for chip in CHIPS]
        lines.append([shapes, "tf32" if precision == "float32" else precision, told, kernel, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def named(tiles: Tiles) -> str:
    """Tiles in words."""
    return ", ".join(f"{name} {value}" for name, value in tiles._asdict().items())


def worst(found: Sequence[Size]) -> str:
    """Registers, spilled bytes, KiB, programs."""
    most = max(size.registers for size in found), max(size.spilled for size in found)
    return (
        f"{most[0]} / {most[1]} / {max(size.shared_kib for size in found):g} / {min(size.programs for size in found)}"
    )


def main() -> None:
    """Compile, show the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every shape of the specs")
    parser.add_argument("--write", action="store_true", help="put it into the page")
    asked = parser.parse_args()
    found = sizes_of(paper_shapes() if asked.all else SHAPES)
    text = table(found)
    print(text)
    if asked.write:
        before, _, rest = PAGE.read_text().partition(MARKS[0])
        PAGE.write_text(before + MARKS[0] + text + MARKS[1] + rest.partition(MARKS[1])[2])
    if faults := [f"sm_{size.chip} {size.kernel} {size.shape}: {size.fault}" for size in found if size.fault]:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
