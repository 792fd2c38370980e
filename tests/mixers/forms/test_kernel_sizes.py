"""The kernels compiled for GPUs that are not here: nothing spills, and shared memory suffices."""

import pytest

pytest.importorskip("triton")

from benchmarks.kernel_sizes import CHIPS, MARKS, PAGE, SHAPES, Shape, Size, paper_shapes, sizes, sizes_of, table

FEW = [  # in one precision each
    (Shape(8, 12, 1624), "float32"),
    (Shape(16, 24, 1624), "bf16"),
    (Shape(8, 64, 544), "float32"),
    (Shape(4, 146, 420), "float32"),
]


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    """Nothing compiled before counts."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def faults(chip, cases):
    """What does not hold; that every pass was compiled among it."""
    found = []
    for shape, precision in cases:
        made = sizes(chip, shape, precision)
        kernels = [size.kernel for size in made]
        layers = "layer_kernel" if "layer_kernel" in kernels else "block_kernel"
        if kernels.count(layers) < 3 or kernels.count("weight_kernel") != 2:
            found.append(f"{shape} {precision}: compiled only {kernels}")
        if not all(size.registers and size.shared_kib for size in made):
            found.append(f"{shape} {precision}: nothing was read")
        found += [f"{shape} {precision} {size.kernel}: {size.fault}" for size in made if size.fault]
    return found


@pytest.mark.parametrize("chip", CHIPS)
def test_kernels_neither_spill_nor_need_more_shared_memory_than_there_is(chip):
    assert faults(chip, FEW) == []


@pytest.mark.parametrize(
    ("spilled", "kib", "told"), [(0, 99.0, ""), (8, 99.0, "spills 8 bytes"), (0, 99.5, "needs 100 KiB")]
)
def test_a_spill_and_an_overflow_are_faults(spilled, kib, told):
    assert Size(89, FEW[0][0], "float32", "block_kernel", 100, spilled, kib, 4).fault == told


@pytest.mark.slow
def test_no_shape_of_the_paper_spills_or_overflows_and_the_page_says_what_kernels_take():
    shapes = paper_shapes()
    assert set(SHAPES) <= set(shapes)
    found = sizes_of(shapes)
    assert [size for size in found if size.fault] == []
    assert {size.chip for size in found} == set(CHIPS)
    assert MARKS[0] + table(sizes_of(SHAPES)) + MARKS[1] in PAGE.read_text()
