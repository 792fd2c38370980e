"""Names in a spec that point to nothing, and keys that stand twice: what a structure alone cannot know."""

from afno_repro.errors import Problem
from afno_repro.options import suggest
from afno_repro.spec.spec import Spec


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
        for side, word in [
            (key, word) for key in ("column", "better", "worse", "over") for word in getattr(claim, key, [])
        ]:
            known(
                word, columns if side == "column" else rows, "column" if side == "column" else "row", "claims", i, side
            )
        if hasattr(claim, "over") and hasattr(claim, "peak"):
            slips = [("over", f"duplicate row {row!r}") for row in rows if claim.over.count(row) > 1]
            slips += (
                [("peak", f"{claim.peak!r} is not among the rows in 'over'")] if claim.peak not in claim.over else []
            )
            problems += [
                Problem(text, ("claims", str(i), key), "", spec.tree.locate(("claims", i, key))) for key, text in slips
            ]
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
