"""Names in a spec that point to nothing, and keys that stand twice: what a structure alone cannot know."""

from collections.abc import Mapping

from afno_repro.errors import Problem
from afno_repro.options import suggest
from afno_repro.spec.claims import Bound, Equivalence, NoWorse, Peak, ScaleName
from afno_repro.spec.spec import Spec

ROWS = ("better", "worse", "no_worse", "than", "equivalent", "to", "over")  # keys of claims that name rows


def reference_problems(spec: Spec) -> list[Problem]:
    """Names in a spec that point to nothing, and keys that stand twice."""
    s = spec.structure
    rows, columns, stages = [r.key for r in s.rows], [c.key for c in s.columns], list(s.stages)
    problems: list[Problem] = []

    def known(word: str, allowed: list[str], title: str, *keys: str | int) -> None:
        if word not in allowed:
            names = tuple(map(str, keys))
            problems.append(
                Problem(
                    f"there is no {title} {word!r}", names, suggest(word, allowed, f"{title}s"), spec.tree.locate(keys)
                )
            )

    def every_scale(values: Mapping[ScaleName, float], *keys: str | int) -> None:
        if set(values) != set(s.scales):
            text = f"must have a number for each of the spec's scales: {', '.join(s.scales)}"
            problems.append(Problem(text, tuple(map(str, keys)), "", spec.tree.locate(keys)))

    for title, words in (("row", rows), ("column", columns)):
        for i, word in enumerate(words):
            if word in words[:i]:
                keys = (f"{title}s", i, "key")
                problems.append(Problem(f"duplicate {title} {word!r}", (f"{title}s",), "", spec.tree.locate(keys)))
    for i, row in enumerate(s.rows):
        for key in row.model_extra or {}:
            known(key, stages, "stage", "rows", i, key)
        for key in row.paper:
            known(key, columns, "column", "rows", i, "paper", key)
        if len(row.title) != len(s.row_title):
            problems.append(
                Problem(
                    f"must have {len(s.row_title)} parts",
                    ("rows", row.key, "title"),
                    "",
                    spec.tree.locate(("rows", i, "title")),
                )
            )
    for i, column in enumerate(s.columns):
        known(column.source.split("/")[0], stages, "stage", "columns", i, "source")
    for name, scale in s.scales.items():
        if not scale.seeds:
            place = spec.tree.locate(("scales", name, "seeds"))
            problems.append(Problem("must have a seed, as in [0]; is []", ("scales", name, "seeds"), "", place))
        for key in scale.unavailable:
            known(key, stages, "stage", "scales", name, "unavailable", key)
        for key in scale.model_extra or {}:
            known(key, stages, "stage", "scales", name, key)
        for key, changes in scale.rows.items():
            known(key, rows, "row", "scales", name, "rows", key)
            for stage in changes:
                known(stage, ["model", *stages], "stage", "scales", name, "rows", key, stage)
        for key, changes in scale.columns.items():
            known(key, columns, "column", "scales", name, "columns", key)
            wrong = spec.column_problems(key, changes) if key in columns else []
            problems += [
                Problem(text, ("scales", name, "columns", key), "", spec.tree.locate(("scales", name, "columns", key)))
                for text in wrong
            ]
    for i, claim in enumerate(s.claims):
        for key, value in claim:
            if key == "column":
                for word in claim.column:
                    known(word, columns, "column", "claims", i, key)
            elif key in ROWS:
                for word in [value] if isinstance(value, str) else value:
                    known(word, rows, "row", "claims", i, key)
        if isinstance(claim, Peak):
            slips = [("over", f"duplicate row {row!r}") for row in rows if claim.over.count(row) > 1]
            slips += (
                [("peak", f"{claim.peak!r} is not among the rows in 'over'")] if claim.peak not in claim.over else []
            )
            problems += [
                Problem(text, ("claims", str(i), key), "", spec.tree.locate(("claims", i, key))) for key, text in slips
            ]
        if bool(claim.under) != bool(s.choices_of):
            slip = "must name the choice" if s.choices_of else "stands only where the spec has choices_of"
            place = spec.tree.locate(("claims", i, "under"))
            problems.append(Problem(f"'under' {slip}", ("claims", str(i), "under"), "", place))
        if isinstance(claim, NoWorse | Equivalence):
            every_scale(claim.margin, "claims", i, "margin")
        if isinstance(claim, Bound) and isinstance(claim.bound, str):
            known(claim.bound, columns, "column", "claims", i, "above" if claim.below is None else "below")
    for i, learned in enumerate(s.learned):
        for word in learned.column:
            known(word, columns, "column", "learned", i, "column")
        if learned.above is not None:
            known(learned.above, [*rows, *columns], "row or column", "learned", i, "above")
        if learned.chance is not None:
            every_scale(learned.chance, "learned", i, "chance")
    for i, figure in enumerate(s.figures):
        named = {
            "stage": (stages, "stage"),
            "x": (columns, "column"),
            "y": (columns, "column"),
            "columns": (columns, "column"),
        }
        for key, (allowed, title) in named.items():
            words = getattr(figure, key, [])
            for word in [words] if isinstance(words, str) else words:
                known(word, allowed, title, "figures", i, key)
        if figure.suffix in [each.suffix for each in s.figures[:i]]:
            problems.append(
                Problem(
                    f"duplicate suffix {figure.suffix!r}: one figure's file",
                    ("figures", str(i)),
                    "",
                    spec.tree.locate(("figures", i)),
                )
            )
    for i, assumption in enumerate(s.assumptions):
        for cell in assumption.cells:
            known(cell, [f"{r}/{c}" for r in rows for c in columns], "cell", "assumptions", i, "cells")
    return problems
