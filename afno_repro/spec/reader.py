"""A spec read from its file, with every mistake in its structure told at once."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from afno_repro.errors import ConfigError, Problem
from afno_repro.options import suggest
from afno_repro.spec.claims import FORMS, FORMS_HINT, Learned
from afno_repro.spec.names import wrong_file_name
from afno_repro.spec.references import reference_problems
from afno_repro.spec.spec import Assumption, Column, Row, Spec, Structure
from afno_repro.spec.tree import Tree, read_tree

SHOWN = 200  # characters of a wrong value in a message


def load_spec(path: Path, label: str | None = None, root: Path = Path()) -> Spec:
    """Read a spec whose files begin at `root`; raises one ConfigError with every mistake in its structure."""
    spec, problems = read_spec(path, label, root)
    if problems or spec is None:
        raise ConfigError(*problems)
    return spec


def read_spec(path: Path, label: str | None = None, root: Path = Path()) -> tuple[Spec | None, list[Problem]]:
    """A spec and its mistakes; what is wrong is left out of the spec, so that the rest can be looked at too.

    The spec is None when too little is left. Raises ConfigError when the file is no YAML mapping.
    """
    tree, problems = read_tree(path, label or str(path))
    if wrong := wrong_file_name(path.stem):
        raise ConfigError(Problem(wrong, place=tree.place))
    for _ in range(2):  # look, leave out what is wrong, look once more
        try:
            spec = Spec(path.stem, tree, Structure.model_validate(tree.plain()), root)
        except ValidationError as error:
            for keys, problem in _structure_problems(tree, error):
                problems += [problem] if problem not in problems else []
                tree = tree.without(keys)
        else:
            return spec, [*problems, *reference_problems(spec)]
    return None, problems


def _structure_problems(tree: Tree, error: ValidationError) -> list[tuple[tuple[str | int, ...], Problem]]:
    """pydantic's errors as problems, with the keys of the part to leave out; list items last first."""
    found: list[tuple[tuple[str | int, ...], Problem]] = []
    for item in error.errors():
        loc = (
            item["loc"][:-1]
            if item["loc"][-1] == "[key]" and item["type"] in ("literal_error", "name")
            else item["loc"]
        )
        keys = loc[:2] + loc[3:] if loc[0] == "claims" else loc  # less the name of the claim's form
        path = tuple(map(str, keys))
        if item["type"] == "extra_forbidden":
            problem = Problem(
                f"unknown key {path[-1]!r}", path, _suggestion(item["loc"]), tree.locate(keys), unknown=True
            )
        elif item["type"] == "missing":
            hint = FORMS_HINT if path[0] == "claims" else ""
            problem = Problem(f"the key {path[-1]!r} is missing", path[:-1], hint, tree.locate(keys))
        else:
            problem = Problem(
                f"{item['msg'][0].lower()}{item['msg'][1:]}, is {repr(item['input'])[:SHOWN]}",
                path,
                "",
                tree.locate(keys),
            )
        found.append((keys, problem))
    return sorted(found, key=lambda pair: [str(key).zfill(9) for key in pair[0]], reverse=True)


def _suggestion(location: tuple[str | int, ...]) -> str:
    """The keys that the part around an unknown key has."""
    parts: dict[str, type[BaseModel]] = {"columns": Column, "rows": Row, "assumptions": Assumption, "learned": Learned}
    parts |= FORMS
    part = next((str(key) for key in location[:-1] if key in parts), "")
    return suggest(
        str(location[-1]),
        list(parts.get(part, Structure).model_fields),
        f"the {part}'s keys" if location[0] == "claims" else "its keys",
    )
