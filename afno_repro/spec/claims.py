"""The forms in which a spec tests the paper's sentences, and what a network has to pass to have learned."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from afno_repro.spec.figures import STRICT

ScaleName = Literal["smoke", "tiny", "small", "paper"]
ListOfNames = Annotated[
    list[str], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


def _number_or_column(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("bound", "must be a number or the key of a column")
    return value


NumberOrColumn = Annotated[float | str, BeforeValidator(_number_or_column)]


class _Claim(BaseModel):
    model_config = STRICT
    claim: str
    where: str
    column: ListOfNames
    doubt: str = ""  # what in the paper's own numbers contradicts its sentence
    under: str = ""  # the choice under which a spec with `choices_of` tests the sentence


class Ordering(_Claim):
    """A sentence as an ordering: `better` beats `worse` in the column's own sense, the paper's own models by `by`."""

    better: ListOfNames
    worse: ListOfNames
    by: Annotated[float, Field(ge=0)]


class _Within(_Claim):
    """A sentence that calls a difference small: `margin` says, for each scale in the column's unit, how small."""

    margin: dict[ScaleName, Annotated[float, Field(gt=0)]]
    why: str  # the margin's reason


class NoWorse(_Within):
    """A sentence like "is competitive with": `no_worse` is behind each of `than` by less than the margin, or ahead."""

    no_worse: ListOfNames
    than: ListOfNames


class Equivalence(_Within):
    """A sentence like "matches" or "is on par": `equivalent` differs from each of `to` by less than the margin."""

    equivalent: ListOfNames
    to: ListOfNames


class Peak(_Claim):
    """A sentence of the paper as a peak: of the rows `over`, in order along an axis, `peak` is the best."""

    peak: str
    over: Annotated[list[str], Field(min_length=2)]


class Bound(_Claim):
    """A sentence of the paper as a bound: each cell of `better` is above `above`, or below `below`.

    That is a number, or another column of the same row, like the mean over all layers.
    """

    better: ListOfNames
    above: NumberOrColumn | None = None
    below: NumberOrColumn | None = None

    @property
    def bound(self) -> float | str | None:
        """What the cells are held to."""
        return self.above if self.below is None else self.below

    @model_validator(mode="after")
    def _one_of_them(self) -> "Bound":
        if (self.above is None) == (self.below is None):
            raise PydanticCustomError("bound", "must have either above or below")
        return self


FORMS: dict[str, type[BaseModel]] = {
    "ordering claim": Ordering,
    "no-worse claim": NoWorse,
    "equivalence claim": Equivalence,
    "peak claim": Peak,
    "bound claim": Bound,
}
FORMS_HINT = (
    "a claim has better, worse and by; or no_worse, than, margin and why; or equivalent, to, margin and why; "
    "or peak and over; or better and above or below"
)


def _form(claim: Any) -> str:
    """Which form of claim is meant, told by the keys that it alone has."""
    keys = claim if isinstance(claim, dict) else {}
    own = {
        "peak claim": ("peak", "over"),
        "bound claim": ("above", "below"),
        "no-worse claim": ("no_worse", "than"),
        "equivalence claim": ("equivalent", "to"),
    }
    return next((form for form, words in own.items() if any(word in keys for word in words)), "ordering claim")


Claim = Annotated[
    Annotated[Ordering, Tag("ordering claim")]
    | Annotated[NoWorse, Tag("no-worse claim")]
    | Annotated[Equivalence, Tag("equivalence claim")]
    | Annotated[Peak, Tag("peak claim")]
    | Annotated[Bound, Tag("bound claim")],
    Discriminator(_form),
]


class Learned(BaseModel):
    """What a network must be shown to pass in each `column`, in the column's own sense, for claims on it to be tested.

    That is `above`, a row like a filling that learns nothing or another column of the same row, like the same network
    from scratch; or `chance`, a number for each scale. Where it does not decide, the table says who falls short of it,
    and claims are tested all the same.
    """

    model_config = STRICT
    column: ListOfNames
    above: str | None = None
    chance: dict[ScaleName, float] | None = None
    decides: bool = True
    why: str

    @model_validator(mode="after")
    def _either(self) -> "Learned":
        if (self.above is None) == (self.chance is None):
            raise PydanticCustomError("learned", "must have either above, a row or a column, or chance")
        return self
