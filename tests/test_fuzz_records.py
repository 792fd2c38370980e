"""Damaged records and checkpoints: a table names what it cannot use, and a run goes back to what is whole."""

import hashlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afno_repro.errors import StorageError
from afno_repro.runs.provenance import provenance
from afno_repro.runs.record import Record
from afno_repro.runs.store import Store, committed_name, published
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.tables.claims import claim_verdicts
from afno_repro.tables.report import report_files
from afno_repro.tables.results import table_csv, table_markdown
from afno_repro.tables.table import build_table
from afno_repro.training import checkpoint
from tests.fuzz import EDITS, JUNK, cases, damaged, documented, edited, mutated
from tests.machine import machine_at
from tests.specs import write_spec

STATE = {"step": 3, "model": {"w": torch.ones(3, 4), "b": torch.zeros(2)}, "losses": [0.5, 0.25], "name": "x"}
HALF_A_PAIR = "\ud800"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small spec, one of its runs, and the run's record: of a training that another machine had begun."""
    root = tmp_path_factory.mktemp("records")
    spec = load_spec(write_spec(root))
    run = plan_runs(spec, "tiny").needs["afno", "pretrain", 0]
    before, now = (provenance(name, machine_at(root), 2.0, "ab") for name in ("another machine", "a machine"))
    metrics, repeats = {"psnr": 20.0, "ssim": 0.5}, {"psnr": [19.0, 21.0]}
    record = Record(run.id, run.digest, run.config, "ok", metrics, repeats, now | {"before": [before]})
    return root, spec, run, record


def as_bytes(tree):
    """The text of a record, signed as the program does it."""
    signature = {"sha256": hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()}
    return json.dumps(tree | signature if isinstance(tree, dict) else tree).encode()


def unsigned(record):
    """A record's tree without its checksum."""
    return {key: value for key, value in json.loads(record.to_json()).items() if key != "sha256"}


def changed(record):
    """Ways to change a record's parts that no digest covers."""
    return st.sampled_from(["metrics", "repeats", "provenance", "outcome", "run_id", "digest"]).flatmap(
        lambda key: JUNK.map(lambda junk: unsigned(record) | {key: junk})
    )


def tables(root, spec, text):
    """The table of a folder whose one record has a text, with everything that is written of it."""
    folder = root / "committed"
    folder.mkdir(exist_ok=True)
    (folder / committed_name("afno", "pretrain", 0)).write_bytes(text)
    table = build_table(spec, "tiny", folder)
    texts = [table_csv(table), table_markdown(table, claim_verdicts(table)), *report_files(root, [table], {}).values()]
    assert all(one.encode() for one in texts if isinstance(one, str))
    return table


@given(data=st.data())
@cases(250)
def test_a_damaged_record_is_read_or_a_value_error(made, data):
    _, _, _, record = made
    text = data.draw(damaged(record.to_json().encode()) | mutated(unsigned(record)).map(as_bytes) | JUNK.map(as_bytes))
    with documented(ValueError):
        assert isinstance(Record.from_json(text.decode(errors="replace")), Record)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "[1]", "null", "1" * 5000, '"x"', ""],
    ids=["lists", "mappings", "list", "null", "digits", "text", "empty"],
)
def test_what_is_no_record_is_a_value_error(text):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Record.from_json(text)
    assert str(error.value)


STRANGE = [
    {"metrics": 5},
    {"metrics": {"psnr": "20"}},
    {"metrics": {"psnr": True}},
    {"metrics": {"psnr": 10**400}},
    {"repeats": {"psnr": []}},
    {"repeats": {"psnr": [None]}},
    {"outcome": "fine"},
    {"run_id": HALF_A_PAIR},
    {"run_id": None},
    {"provenance": {}},
    {"provenance": None},
]


@pytest.mark.parametrize("change", STRANGE, ids=str)
def test_a_record_with_a_part_of_another_type_is_told_below_the_table_and_not_used(made, change):
    root, spec, _, record = made
    with pytest.raises(ValueError, match=r"not a record|surrogates"):
        Record.from_json(as_bytes(unsigned(record) | change).decode())
    table = tables(root, spec, as_bytes(unsigned(record) | change))
    assert table.cells["afno", "psnr"].state == "missing"
    assert table.stale[0].startswith("afno/pretrain seed 0: ")


@pytest.mark.parametrize("key", ["commit", "dirty", "packages", "python", "device", "seconds"])
def test_a_record_must_say_what_it_was_made_with(made, key):
    tree = unsigned(made[3])
    del tree["provenance"][key]
    with pytest.raises(ValueError, match=key):
        Record.from_json(as_bytes(tree).decode())
    tree = unsigned(made[3])
    del tree["provenance"]["before"][0][key]
    with pytest.raises(ValueError, match=r"provenance\.before"):
        Record.from_json(as_bytes(tree).decode())


@given(data=st.data())
@cases(100)
def test_a_damaged_committed_record_is_used_whole_or_named(made, data):
    root, spec, _, record = made
    whole = record.to_json().encode()
    text = data.draw(damaged(whole) | mutated(unsigned(record)).map(as_bytes) | changed(record).map(as_bytes))
    with documented():
        table = tables(root, spec, text)
        try:
            found = published(root / "committed", "afno", "pretrain", 0)
        except ValueError:
            found = None
        assert (found is None) == bool(table.stale)
        assert [one.run_id for one in table.records] == ([found.run_id] if found else [])


@given(data=st.data())
@cases(100)
def test_a_run_with_a_damaged_record_counts_as_not_finished(made, data):
    root, _, run, record = made
    path = root / "runs" / run.id / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.draw(damaged(record.to_json().encode()) | st.binary(max_size=50)))
    with documented():
        found = Store(root / "runs").record(run.digest)
        assert found is None or found.digest == run.digest


def checkpoints(folder):
    """Two checkpoints, the newest of which is to be damaged."""
    for step in (1, 2):
        checkpoint.save(folder, step, STATE | {"step": step}, {})
    return folder / "step-000000002"


def manifest(data):
    return json.dumps({"state.pt": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}})


@pytest.mark.parametrize("part", ["state.pt", "manifest.json", "both"])
def test_a_damaged_checkpoint_gives_way_or_is_refused_whatever_the_damage(tmp_path, part):
    newest = checkpoints(tmp_path / "checkpoints")
    whole = {name: (newest / name).read_bytes() for name in ("state.pt", "manifest.json")}

    @given(data=damaged(whole["state.pt" if part == "both" else part]))
    @cases(60)
    def damage(data):
        for name, kept in whole.items():
            (newest / name).write_bytes(kept)
        (newest / ("state.pt" if part == "both" else part)).write_bytes(data)
        if part == "both":
            (newest / "manifest.json").write_text(manifest(data))
        said = []
        with documented(StorageError):
            state = checkpoint.load_newest(tmp_path / "checkpoints", said.append)
            assert isinstance(state, dict)
            assert not said or state["step"] == 1
            assert part == "both" or said or state["step"] == 2

    damage()


@given(edits=st.lists(EDITS, min_size=1, max_size=3))
@cases(40)
def test_where_no_checkpoint_is_whole_a_run_is_refused(tmp_path, edits):
    newest = checkpoints(tmp_path / "checkpoints")
    for path in (newest, newest.with_name("step-000000001")):
        data = (path / "state.pt").read_bytes()
        (path / "state.pt").write_bytes(edited(data, edits) + b"x")
    with pytest.raises(StorageError, match="no checkpoint is whole"):
        checkpoint.load_newest(tmp_path / "checkpoints", lambda text: None)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "null", '{"state.pt": 5}', '{"state.pt": {"bytes": "x"}}', "\x00"], ids=range(6)
)
def test_a_manifest_of_another_form_gives_way_to_the_checkpoint_before(tmp_path, text):
    (checkpoints(tmp_path / "checkpoints") / "manifest.json").write_text(text)
    said = []
    state = checkpoint.load_newest(tmp_path / "checkpoints", said.append)
    assert state["step"] == 1
    assert len(said) == 1
