import os

import pytest

from afno_repro.errors import ConfigError
from afno_repro.spec.tree import MAX_BYTES, from_plain, merge, parse_value, read_tree

pytestmark = pytest.mark.fast


def read(tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return read_tree(path, "spec.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5", 1.5),
        ("-2", -2),
        (".5", 0.5),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("'1'", "1"),
        ('"null"', "null"),
        ("012", 12),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("[1, two]", [1, "two"]),
        ("{a: 1e3}", {"a": 1000.0}),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    assert parse_value(text, "here").plain() == value


def test_every_value_knows_its_line_and_column(tmp_path):
    tree, problems = read(tmp_path, "a: 1\nb:\n  - x\n  - {c: 2}\n")
    assert problems == []
    assert tree.plain() == {"a": 1, "b": ["x", {"c": 2}]}
    assert tree.locate(["a"]) == "spec.yaml:1:1"
    assert tree.locate(["b", 1, "c"]) == "spec.yaml:4:6"
    assert tree.locate(["b", 1, "nothing", "below"]) == "spec.yaml:4:5"


def test_a_duplicate_key_is_a_mistake_that_does_not_hide_the_rest(tmp_path):
    tree, problems = read(tmp_path, "a: 1\nb: 2\na: 3\n")
    assert [str(p) for p in problems] == ["spec.yaml:3:1: duplicate key 'a'"]
    assert tree.plain() == {"a": 3, "b": 2}


ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{k}: &{k} [{', '.join([f'*{j}'] * 10)}]\n" for j, k in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['true']", "tags are not allowed"),
        ("a: !thing 1", "tags are not allowed"),
        ("a: !!str 1", "tags are not allowed"),
        (ALIAS_BOMB, "after expanding aliases"),
        ("a: &x [*x]", "contains itself"),
        ("[" * 40 + "]" * 40, "nested deeper"),
        ("a: [", "not YAML"),
        ("- 1\n- 2", "a spec is a mapping"),
        ("", "a spec is a mapping"),
        ("? [a]\n: 1", "a key is a single word"),
        ("a: " + "x" * MAX_BYTES, "at most"),
    ],
    ids=[
        "python tag",
        "own tag",
        "core tag",
        "alias bomb",
        "alias loop",
        "deep",
        "broken",
        "list",
        "empty",
        "complex key",
        "huge",
    ],
)
def test_hostile_and_broken_files_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "spec.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not YAML"):
        read_tree(tmp_path / "spec.yaml", "spec.yaml")


def merged(base, over):
    return merge(from_plain(base, "base"), from_plain(over, "over")).plain()


def test_later_wins_key_by_key():
    assert merged({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 4}, "c": 5}) == {"a": {"x": 1, "y": 4}, "b": 3, "c": 5}


def test_lists_are_replaced_not_joined():
    assert merged({"a": [1, 2]}, {"a": [3]}) == {"a": [3]}


def test_a_part_that_changes_its_name_is_replaced_whole():
    assert merged({"d": {"name": "p", "x": 1}}, {"d": {"name": "q", "y": 2}}) == {"d": {"name": "q", "y": 2}}
    assert merged({"d": {"name": "p", "x": 1}}, {"d": {"name": "p", "y": 2}}) == {"d": {"name": "p", "x": 1, "y": 2}}


def test_null_removes_a_part_for_good():
    assert merged(merged({"train": {"lr": 1}}, {"train": None}), {"train": {"lr": 2}}) == {"train": None}


def test_a_merged_value_knows_the_level_it_came_from():
    tree = merge(from_plain({"a": {"x": 1, "y": 2}}, "base"), from_plain({"a": {"y": 3}}, "over"))
    assert (tree.locate(["a", "x"]), tree.locate(["a", "y"])) == ("base", "over")


def test_a_pipe_is_no_spec_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_tree(tmp_path / "pipe.yaml", "pipe.yaml")
