"""What a command answers: one value for machines, and the same shown to people."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A JSON value and the function that shows it as text."""

    value: Any
    show: Callable[[], None]


def tell(answer: Answer, as_json: bool) -> None:
    """Print an answer as text, or as one JSON value."""
    if as_json:
        import json

        print(json.dumps(answer.value, indent=1, allow_nan=False))
    else:
        answer.show()


def some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
