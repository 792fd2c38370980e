"""The figures that a spec asks for, in the forms that they have."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from afno_repro.spec.names import Suffix

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Figure(BaseModel):
    """A figure; `suffix` tells it from the spec's other ones in its file's name."""

    model_config = STRICT
    suffix: Suffix = ""


class Families(_Figure):
    """A column against another, a line for each family of rows."""

    name: Literal["families"]
    x: str
    y: str


class Ablation(_Figure):
    """Columns against an option of the mixer; logarithmic, and linear below a value where the option reaches zero."""

    name: Literal["ablation"]
    columns: list[str]
    option: str
    axis: str
    linear_below: float | None = None
    peak: float | None = None  # where the paper has the peak


class Shown(_Figure):
    """What a stage's runs have to show."""

    name: Literal["training", "clusters", "spectra", "triptychs", "overlays"]
    stage: str


Figure = Annotated[Families | Ablation | Shown, Field(discriminator="name")]
