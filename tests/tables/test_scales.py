"""What the head of a table says of its scale is true of its data."""

import pytest

from afno_repro.spec.reader import load_spec
from afno_repro.spec.spec import SCALES
from afno_repro.tables.report import readme, report_files
from afno_repro.tables.results import table_markdown
from afno_repro.tables.scales import scale_note
from afno_repro.tables.table import build_table
from tests.specs import SMALL, write_spec

pytestmark = pytest.mark.fast

PHOTOS = SMALL[SMALL.index("{name: photos") : SMALL.index("    train:\n")]
FOLDER = (
    "{name: folder, folder: holidays, image_size: 16, fraction: 1.0, seed: 0, crop_fraction: 1.0, "
    "interpolation: bilinear, skip: [], tuning: null, max_megapixels: 100}\n"
)


def heads(tmp_path, text, scale, changes=()):
    """The first lines of a table, of the report that holds it, and of the overview."""
    text = text.replace("scales:\n", "scales:\n  small: {seeds: [0]}\n")
    table = build_table(load_spec(write_spec(tmp_path, text)), scale, tmp_path / "none", changes)
    pages = [table_markdown(table, []), *report_files(tmp_path, [table], {}).values(), readme({scale: [table]})]
    return [page[page.index(f"{scale.capitalize()} scale: ") :].partition(".")[0] for page in pages]


@pytest.mark.parametrize("scale", SCALES)
def test_one_s_own_images_are_named_and_not_taken_for_the_packages_or_the_paper_s(tmp_path, scale):
    for head in heads(tmp_path, SMALL.replace(PHOTOS, FOLDER), scale):
        assert head.removesuffix(", to see that everything runs").endswith(" on the data set folder/holidays")


def test_what_set_changes_counts(tmp_path):
    changes = (f"pretrain.data={FOLDER.strip()}",)
    assert all("on the data set folder/holidays" in head for head in heads(tmp_path, SMALL, "tiny", changes))


def test_data_of_the_installed_packages_are_said_to_be_so(tmp_path):
    assert {*heads(tmp_path, SMALL, "tiny")} == {
        "Tiny scale: small models on photographs from inside the installed packages"
    }


def test_what_is_fed_nothing_claims_no_data():
    assert scale_note("tiny", []).startswith("Tiny scale: small models. Its qualities are not the paper's")
