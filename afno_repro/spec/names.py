"""Names that become parts of paths: what a spec may call its rows, stages, columns and figures, and itself.

A record lies at records/<spec>/<row>.<stage>.<seed>.json and a run at <kind>-<row>-<digest>, so no name may be able
to leave its folder, to match other files as a pattern, or to have two meanings: dots stand in rows alone, inside.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

LONGEST = 64
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
DOTTED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
WORDS = f"letters (a-z, A-Z), digits, '_' and '-', the last not first, at most {LONGEST} characters"
TAKEN = ("cells", "claims", "report")  # files of every scale's results folder


def _checked(text: str, pattern: re.Pattern[str], allowed: str) -> str:
    if len(text) > LONGEST or not pattern.fullmatch(text):
        raise PydanticCustomError("name", "must be a name: {allowed}", {"allowed": allowed})
    return text


def _name(text: str) -> str:
    return _checked(text, NAME, WORDS)


def _dotted(text: str) -> str:
    return _checked(text, DOTTED, f"{WORDS}; a row's may have single dots inside")


def _source(text: str) -> str:
    if text.count("/") != 1 or not all(NAME.fullmatch(part) and len(part) <= LONGEST for part in text.split("/")):
        raise PydanticCustomError("name", "must be a stage and a metric, as in pretrain/psnr", {})
    return text


Name = Annotated[str, AfterValidator(_name)]
RowName = Annotated[str, AfterValidator(_dotted)]
Suffix = Annotated[str, AfterValidator(lambda text: text and _name(text))]
Source = Annotated[str, AfterValidator(_source)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def wrong_file_name(stem: str) -> str:
    """What is wrong with a spec's file name less its ending, the name of its table; empty where nothing is."""
    if stem in TAKEN:
        return f"a spec cannot be called {stem!r}: that is a file of every results folder"
    return (
        ""
        if len(stem) <= LONGEST and NAME.fullmatch(stem)
        else f"a spec's file must have a name, then .yaml, is {stem[:LONGEST]!r}: {WORDS}"
    )
