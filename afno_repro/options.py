"""A constructor's keywords are its schema: values from a spec are held to its signature and type hints."""

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from afno_repro.errors import Problem

SCALARS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (int, float),
}  # what fits, and nothing derived from it


def option_problems(
    name: str, options: Mapping[str, Any], constructor: Callable[..., Any], given: tuple[str, ...] = ()
) -> list[Problem]:
    """Unknown, missing and wrongly typed options, held to a constructor's signature less the arguments given to it."""
    hints = {key: hint for key, hint in keywords(constructor).items() if key not in given}
    problems = [
        Problem(f"{name} has no option {key!r}", (key,), suggest(key, hints, "its options"), unknown=True)
        for key in options
        if key not in hints
    ]
    for key, hint in hints.items():
        if key not in options:
            problems.append(Problem(f"{name} needs the option {key!r}", (), f"its options: {', '.join(hints)}"))
        elif not fits(options[key], hint):
            problems.append(Problem(f"{name}: must be {type_name(hint)}, is {options[key]!r}", (key,)))
    return problems


@functools.cache
def keywords(constructor: Callable[..., Any]) -> dict[str, Any]:
    """The types of a constructor's arguments."""
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    return {key: hint for key, hint in hints.items() if key not in ("return", "self")}


@functools.cache
def anatomy(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type less its arguments, and these."""
    return typing.get_origin(hint), typing.get_args(hint)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from YAML is of a type; a whole number is a number, true and false are not."""
    if hint in SCALARS:
        return type(value) in SCALARS[hint]
    origin, inner = anatomy(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, each) for each in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    return hint is Any or isinstance(value, hint)


def type_name(hint: Any) -> str:
    """A type in the words of a message."""
    origin, inner = anatomy(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is list:
        return f"a list of {type_name(inner[0]).removeprefix('a ')}s"
    if origin in (dict, Mapping):
        return (
            "a mapping"
            if inner[0] is str
            else f"a mapping of {type_name(inner[0]).removeprefix('one of ')} to {type_name(inner[1])}"
        )
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_name(each) for each in inner)
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        type(None): "null",
    }
    return names.get(hint, str(hint))


def suggest(word: str, known: Iterable[str], title: str) -> str:
    """The words that are known, and the closest one: `its options: a, b. Did you mean 'a'?`"""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"{title}: {', '.join(known)}." + (f" Did you mean {close[0]!r}?" if close else "")
