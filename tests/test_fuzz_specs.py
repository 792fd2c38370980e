"""Specs, --set and names of any form end in a plan or in mistakes that are told."""

import os

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from afno_repro.errors import ConfigError
from afno_repro.runs.check import check_runs
from afno_repro.spec.places import Places, load_specs
from afno_repro.spec.plan import Choice, resolve_runs
from afno_repro.spec.reader import load_spec, read_spec
from afno_repro.spec.spec import SCALES
from afno_repro.spec.tree import MAX_DEPTH, parse_value
from tests.fuzz import JUNK, NUMBERS, cases, damaged, documented, edited, mutated
from tests.specs import ROOT, SMALL, write_spec

REAL = {path.stem: path.read_bytes() for path in sorted((ROOT / "experiments").glob("*.yaml"))}
SMALL_TREE = yaml.safe_load(SMALL.replace("1e-3", "0.001").replace("1e-5", "0.00001"))
LOOKED_AT = 2  # runs of a plan whose models are built
YAML_BITS = st.sampled_from(
    [
        *"[]{}:,-?&*!|>'\"%@`#\n \t0",
        "&a ",
        "*a",
        "!!x ",
        "- ",
        ": ",
        "? ",
        "---\n",
        "<<: ",
        "1e999",
        "\x00",
        "\x85",
        "\ufeff",
        "\ud7ff",
        "9" * 400,
    ]
)
SETTABLE = [
    "pretrain",
    "cost",
    "model",
    "pretrain.train.lr",
    "pretrain.data.seed",
    "pretrain.data.image_size",
    "pretrain.task.walk.steps",
    "pretrain.task",
    "cost.task.mixer_fft",
]
SETTABLE += [
    f"model.{key}"
    for key in (
        "backbone.depth",
        "backbone.embed_dim",
        "backbone.mlp_ratio",
        "backbone.skips",
        "mixer.num_blocks",
        "mixer",
        "head.name",
    )
]


def mistakes(path, scale=None, choice=None):
    """What is told of a spec, in every part of the way to its runs."""
    spec, problems = read_spec(path, path.name)
    for one in [one for one in (spec.structure.scales if spec else ()) if one == (scale or one)][:1]:
        plan, found = resolve_runs(spec, one, choice or Choice())
        problems = [*problems, *found, *check_runs(plan, plan.runs[:LOOKED_AT])]
    assert all(problem.message.strip() for problem in problems)
    return problems


@pytest.fixture
def place(tmp_path):
    return write_spec(tmp_path)


@given(
    data=st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass"))
    | st.binary(max_size=200)
    | st.lists(YAML_BITS, max_size=30).map(lambda bits: "".join(bits).encode())
)
@example(data=b"a: \xed\xa0\x80")
@example(data=b"a: 1e999")
@example(data=b"[" * 100_000)
@example(data=b"a: " + b"{a: " * 100_000)
@example(data=b"a: &a {b: *a}")
@example(data=b"- " * 100_000)
@cases(400)
def test_any_bytes_are_a_spec_or_its_mistakes_are_told(place, data):
    place.write_bytes(data)
    with documented():
        mistakes(place)


@given(tree=st.dictionaries(st.sampled_from(sorted(SMALL_TREE)), JUNK, max_size=8).map(lambda junk: SMALL_TREE | junk))
@cases(150)
def test_any_tree_is_a_spec_or_its_mistakes_are_told(place, tree):
    place.write_text(yaml.safe_dump(tree, allow_unicode=True))
    with documented():
        mistakes(place)


@given(tree=mutated(SMALL_TREE), scale=st.sampled_from(sorted(SMALL_TREE["scales"])))
@cases(250)
def test_a_spec_with_junk_at_one_place_is_sound_or_its_mistakes_are_told(place, tree, scale):
    place.write_text(yaml.safe_dump(tree))
    with documented():
        mistakes(place, scale)


@pytest.mark.parametrize("name", sorted(REAL))
def test_a_committed_spec_after_any_edit_is_sound_or_its_mistakes_are_told(place, name):
    tree = yaml.safe_load(REAL[name])

    @given(
        data=damaged(REAL[name]) | mutated(tree).map(lambda tree: yaml.safe_dump(tree).encode()),
        scale=st.sampled_from(SCALES),
    )
    @cases(25)
    def edit(data, scale):
        place.write_bytes(data)
        with documented():
            mistakes(place, scale)

    edit()


@given(lines=st.tuples(st.integers(0, 40), st.integers(0, 40)), name=st.sampled_from(sorted(REAL)))
@cases(40)
def test_a_committed_spec_with_two_lines_swapped_is_sound_or_its_mistakes_are_told(place, name, lines):
    text = REAL[name].splitlines(keepends=True)
    first, second = (line % len(text) for line in lines)
    text[first], text[second] = text[second], text[first]
    place.write_bytes(b"".join(text))
    with documented():
        mistakes(place, "tiny")


@given(text=st.text(st.characters(), max_size=30) | st.lists(YAML_BITS, max_size=20).map("".join))
@example(text="\udcff")
@example(text="[" * 400 + "]" * 400)
@example(text="[" * 100_000)
@example(text="!!python/object:os.system x")
@cases(300)
def test_any_text_is_a_value_or_refused(text):
    with documented():
        parse_value(text, "--set x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e999", "at most"),
        ("-" + "9" * 5000, "at most"),
        ("{a: 1, a: 2}", "duplicate key 'a'"),
        ("!!int 5", "tags are not allowed"),
        ("\udcff", "not a value"),
    ],
    ids=["infinite", "many digits", "duplicate", "tag", "no text"],
)
def test_a_value_of_the_command_line_obeys_the_rules_of_a_file(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_value(text, "--set x")
    assert str(error.value).startswith("--set x: ")


@given(
    key=st.sampled_from(SETTABLE) | st.text(st.characters(), max_size=10),
    value=NUMBERS.map(str) | JUNK.map(lambda tree: yaml.safe_dump(tree)) | st.text(st.characters(), max_size=10),
)
@example(key="pretrain." + "a." * 3000 + "b", value="1")
@example(key="pretrain.train.lr", value="1e999")
@example(key="model.backbone.depth", value="200000")
@example(key="model.backbone.mlp_ratio", value=str(10**18))
@example(key="model.backbone.embed_dim", value=str(10**15))
@example(key="pretrain.data.image_size", value=str(10**15))
@cases(250)
def test_any_change_is_planned_or_refused(place, key, value):
    with documented():
        mistakes(place, "tiny", Choice(changes=(f"{key}={value}",)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pretrain.data.seed=-1", "must be at least 0, is -1"),
        ("model.backbone.depth=200000", "must be at most"),
        ("pretrain.data.image_size=1000000000", "must be at most"),
        ("pretrain." + "a." * MAX_DEPTH + "b=1", "at most"),
    ],
)
def test_a_change_beyond_all_use_is_told_before_any_work(place, change, message):
    try:
        told = mistakes(place, "tiny", Choice(rows=("afno",), changes=(change,)))
    except ConfigError as error:
        told = error.problems
    assert message in told[0].message


def test_a_change_to_null_leaves_a_stage_out(place):
    plan, problems = resolve_runs(load_spec(place), "tiny", Choice(changes=("cost=null",)))
    assert problems == []
    assert {stage for _, stage, _ in plan.needs} == {"pretrain"}


@given(
    name=st.text(st.characters(), max_size=30)
    | st.sampled_from(["..", "/", ".", "~", "a\x00b", "\udcff", "*", "[", "small", "all"]).flatmap(
        lambda s: st.sampled_from(["", "/", ".yaml"]).map(s.__add__)
    )
)
@example(name="a" * 5000)
@example(name="a" * 300 + ".yaml")
@example(name="\x00.yaml")
@cases(200)
def test_any_name_is_a_spec_or_refused(place, name):
    with documented():
        load_specs(Places(place.parents[1], place.parents[1] / "runs"), name)


def test_a_folder_or_a_dangling_link_among_the_specs_hides_no_other(place):
    (place.parent / "folder.yaml").mkdir()
    os.symlink("/nowhere", place.parent / "link.yaml")
    places = Places(place.parents[1], place.parents[1] / "runs")
    assert load_specs(places, "small")[0][1] == []
    assert load_specs(places, "inpainting")[0][1] == []
    for name in ("folder", "link"):
        with pytest.raises(ConfigError, match=f"there is no spec '{name}'"):
            load_specs(places, name)


def test_an_edit_is_an_edit():
    assert edited(b"abcd", [("flip", 0.0, b"\0"), ("delete", 0.5, b"\1"), ("cut", 0.7, b"x")]) == b"`b"
