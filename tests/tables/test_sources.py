"""What a table says of the source of its numbers: a mixture where there is one, and none where there is none."""

from dataclasses import replace

import pytest

from afno_repro.tables.report import report_files
from tests.specs import SMALL
from tests.tables.test_table import Made, table_markdown

pytestmark = pytest.mark.fast

OWN = SMALL.replace("mixer: {name: gfn}", 'mixer: {name: "tests.mixers.mine:Sound", bias: true}')
SEEDS = "tiny: {seeds: [0, 1, 2]}"


def table_of(tmp_path, sources, text=SMALL):
    """A table of pretrainings, by row and seed made by the source of this name."""
    made = Made(tmp_path, text)
    for row, seed in sources:
        made.put(row, "pretrain", seed, psnr=20.0 + seed)
    table = made.table()
    found = {
        need: replace(record, provenance={**record.provenance, "source": sources[need[0], need[2]]})
        for need, record in table.found.items()
    }
    return replace(table, found=found)


def pages(tmp_path, table):
    return [table_markdown(table), *report_files(tmp_path, [table], {}).values()]


def test_a_mixer_of_one_s_own_beside_the_package_s_is_no_mixture(tmp_path):
    table = table_of(
        tmp_path, {("gfn", 0): "package and own", ("afno", 0): "package", ("fill_mean", 0): "package"}, OWN
    )
    for page in pages(tmp_path, table):
        assert "records mix" not in page


@pytest.mark.parametrize("row", ["gfn", "afno"])
def test_two_sources_of_what_should_have_one_are_told_with_the_rows_that_average_them(tmp_path, row):
    text = OWN.replace("tiny: {seeds: [0]}", SEEDS)
    sources = {("gfn", seed): "own" for seed in range(3)} | {("afno", seed): "package" for seed in range(3)}
    table = table_of(tmp_path, sources | {(row, 1): "edited"}, text)
    before = sources[row, 1]
    for page in pages(tmp_path, table):
        assert (
            f"averages over seeds of several sources: {row}/pretrain (seed 0, 2 by {before}; seed 1 by edited)" in page
        )
        assert "records mix sources" in page or "**The records mix them.**" in page
    of = "the package with tests" if row == "gfn" else "the package"
    assert f"Source of {of}: {'; '.join(sorted((before, 'edited')))} **The records mix" in table_markdown(table)


def test_what_was_evaluated_later_is_told_with_its_source_and_replaces_nothing(tmp_path):
    table = table_of(tmp_path, {("afno", 0): "first"})
    (record,) = table.found.values()
    later = {"metrics": {"psnr": 99.0, "ssim": 0.5}, "data": "", "source": "newer"}
    again = replace(record, evaluations=(later, {**later, "metrics": {"ssim": 0.6}, "source": "newest"}))
    assert again.scores == {"psnr": record.metrics["psnr"], "ssim": 0.6}
    without = replace(again, metrics={})
    for page in pages(tmp_path, replace(table, found=dict.fromkeys(table.found, again))):
        assert "evaluated later" not in page  # ssim is no column
    for page in pages(tmp_path, replace(table, found=dict.fromkeys(table.found, without))):
        assert "evaluated later: afno/pretrain seed 0 (psnr by source newer)" in page
