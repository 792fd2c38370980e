"""YAML as plain values that remember where they stand, and the one rule by which a spec's levels are merged.

YAML 1.2 scalars (`1e-3` is a number, `yes` is text), no tags, no duplicate keys; documents are limited in size, depth
and, after expanding aliases, in nodes.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import yaml

from afno_repro.errors import ConfigError, Problem, is_refused
from afno_repro.files import read_regular

MAX_BYTES, MAX_DEPTH, MAX_NODES = 2**20, 32, 20_000
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
INTEGER = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True)
class Tree:
    """A value and its place `file:line:column`; a mapping's values and a list's items are Trees."""

    value: Any
    place: str

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def get(self, key: str) -> "Tree | None":
        """A mapping's entry."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def locate(self, keys: Iterable[str | int]) -> str:
        """The place of the deepest part that the keys reach."""
        tree = self
        for key in keys:
            children = (
                tree.value
                if isinstance(tree.value, dict)
                else dict(enumerate(tree.value))
                if isinstance(tree.value, list)
                else {}
            )
            if key not in children:
                break
            tree = children[key]
        return tree.place

    def without(self, keys: tuple[str | int, ...]) -> "Tree":
        """The same tree less the part that the keys reach."""
        if isinstance(self.value, dict) and keys and keys[0] in self.value:
            rest = {k: v for k, v in self.value.items() if k != keys[0]}
            return Tree({**rest, keys[0]: self.value[keys[0]].without(keys[1:])} if len(keys) > 1 else rest, self.place)
        if isinstance(self.value, list) and keys and isinstance(keys[0], int) and keys[0] < len(self.value):
            if len(keys) == 1:
                return Tree([v for i, v in enumerate(self.value) if i != keys[0]], self.place)
            return Tree([v.without(keys[1:]) if i == keys[0] else v for i, v in enumerate(self.value)], self.place)
        return self


def merge(base: Tree | None, over: Tree | None) -> Tree | None:
    """Later wins, key by key; a part that changes its name is replaced whole; null stays null under a mapping."""
    if base is None or over is None:
        return base if over is None else over
    if not isinstance(over.value, dict):
        return over
    if base.value is None:
        return base
    if not isinstance(base.value, dict) or renamed(base, over):
        return over
    keys = [*base.value, *(key for key in over.value if key not in base.value)]
    return Tree({key: merge(base.value.get(key), over.value.get(key)) for key in keys}, over.place)


def renamed(base: Tree, over: Tree) -> bool:
    """Whether `over` names another part than `base`."""
    return "name" in over.value and "name" in base.value and over.value["name"].value != base.value["name"].value


def read_tree(path: Path, label: str) -> tuple[Tree, list[Problem]]:
    """Parse a YAML file; returns its tree and mistakes that do not hide the rest (duplicate keys, the last one kept).

    `label` is the file's name in messages. Raises ConfigError when the file cannot be read as a limited YAML mapping.
    """
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise ConfigError(Problem(f"{label}: {error.strerror}", refused=is_refused(error))) from None
    try:
        text = data.decode("utf-8")
        _check_events(text, label)
        node = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
        raise ConfigError(Problem(f"not YAML: {getattr(error, 'problem', None) or error}", place=place)) from None
    reader = _Reader(label)
    tree = reader.tree(node) if node is not None else Tree(None, f"{label}:1:1")
    if not isinstance(tree.value, dict):
        raise ConfigError(Problem("a spec is a mapping of keys to values", place=tree.place))
    return tree, reader.problems


def parse_value(text: str, place: str) -> Tree:
    """A value given on the command line, by the same rules."""
    try:
        _check_events(text, place, numbered=False)
        node = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, UnicodeEncodeError):  # the latter: bytes of the command line that are no text
        raise ConfigError(Problem(f"not a value: {text!r}", place=place)) from None
    reader = _Reader(place, numbered=False)
    tree = reader.tree(node) if node is not None else Tree(None, place)
    if reader.problems:
        raise ConfigError(*reader.problems)
    return tree


def from_plain(value: Any, place: str) -> Tree:
    """A tree of plain values that all stand at one place."""
    if isinstance(value, Mapping):
        return Tree({key: from_plain(child, place) for key, child in value.items()}, place)
    if isinstance(value, list):
        return Tree([from_plain(child, place) for child in value], place)
    return Tree(value, place)


def _check_events(text: str, label: str, numbered: bool = True) -> None:
    """Refuse tags and deep nesting before anything is composed from the text."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        place = _place(label, event) if numbered else label
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(Problem(f"nested deeper than {MAX_DEPTH} levels", place=place))
        if getattr(event, "tag", None) is not None:
            raise ConfigError(Problem(f"tags are not allowed: {getattr(event, 'tag', '')}", place=place))


def _place(label: str, item: Any) -> str:
    return f"{label}:{item.start_mark.line + 1}:{item.start_mark.column + 1}"


class _Reader:
    """Turns composed YAML nodes into a Tree, counting them and collecting duplicate keys."""

    def __init__(self, label: str, numbered: bool = True):
        self.label, self.numbered, self.nodes = label, numbered, 0
        self.problems: list[Problem] = []

    def place(self, node: yaml.Node) -> str:
        return _place(self.label, node) if self.numbered else self.label

    def tree(self, node: Any, depth: int = 0) -> Tree:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ConfigError(Problem(f"more than {MAX_NODES} values after expanding aliases", place=self.place(node)))
        if depth > MAX_DEPTH:
            message = (
                f"nested deeper than {MAX_DEPTH} levels after expanding aliases, as where an alias contains itself"
            )
            raise ConfigError(Problem(message, place=self.place(node)))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return Tree([self.tree(child, depth + 1) for child in node.value], self.place(node))
        value = scalar(node.value) if not node.style else node.value
        if value in (inf, -inf):
            raise ConfigError(
                Problem(
                    f"a number is at most {sys.float_info.max:.0e} in size, is {node.value[:50]}",
                    place=self.place(node),
                )
            )
        return Tree(value, self.place(node))

    def mapping(self, node: yaml.MappingNode, depth: int) -> Tree:
        entries: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(Problem("a key is a single word", place=self.place(key_node)))
            key, value = key_node.value, self.tree(value_node, depth + 1)
            if key in entries:
                self.problems.append(Problem(f"duplicate key {key!r}", place=self.place(key_node)))
            entries[key] = Tree(value.value, self.place(key_node))
        return Tree(entries, self.place(node))


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core rules."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        return int(text) if len(text) < 20 else float(text)
    return float(text) if FLOAT.fullmatch(text) else text
