"""Claims about rates, with the rules that decide them."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from persona_leakage.domain.frozen import Frozen


class _Claim(Frozen):
    """A statement, and the rule that decides it."""

    statement: str
    conditions: tuple[str, ...] = Field(min_length=1)

    @property
    def terms(self) -> dict[str, tuple[Any, ...]]:
        """What the claim names, by kind: condition, and of metric, role and layer those that it has."""
        others = [kind for kind in ("metric", "role", "layer") if kind in type(self).model_fields]
        return {"condition": self.conditions, **{kind: (getattr(self, kind),) for kind in others}}


class _Region(_Claim):
    """Claim: something lies at or below `at_most` and at or above `at_least`, as far as they are given."""

    at_most: float | None = None
    at_least: float | None = None
    lowest: ClassVar[float]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        bounds = {name: getattr(self, name) for name in ("at_least", "at_most") if getattr(self, name) is not None}
        if not bounds:
            raise ValueError("a bound needs at_most or at_least")
        for name, bound in bounds.items():
            if not self.lowest < bound < 1:
                inside = min(max(bound, self.lowest + 0.01), 0.99)
                raise ValueError(
                    f"{name} {bound:g} is shown by no number of completions, since every interval reaches beyond; name a bound "
                    f"between {self.lowest:g} and 1, such as {inside:g}"
                )
        if list(bounds.values()) != sorted(bounds.values()):
            raise ValueError("at_least lies above at_most; exchange them")
        return self


class RateBound(_Region):
    """Claim: every selected rate is at most (or at least) a bound.

    Attributes:
        role: of the cells; `others` are all but the source.
        together: the cells are pooled into one rate, of which the conditions (of a single one, its seeds) are the sample.
    """

    kind: Literal["rate_bound"] = "rate_bound"
    metric: str
    role: str
    together: bool = False
    lowest: ClassVar[float] = 0


class RateDifference(_Region):
    """Claim: the pooled rate of some conditions less that of others is at most (or at least) a bound; both: as good as equal.

    Conditions (of a single one, its seeds) are the sample on either side; role as in `RateBound`.
    """

    kind: Literal["rate_difference"] = "rate_difference"
    metric: str
    role: str
    others: tuple[str, ...] = Field(min_length=1)
    lowest: ClassVar[float] = -1

    @property
    def terms(self) -> dict[str, tuple[Any, ...]]:
        """What the claim names; the conditions of the other side too."""
        return super().terms | {"condition": (*self.conditions, *self.others)}


class Changes(_Claim):
    """Claim: from checkpoint 0 to the last, the role's rate rises (or falls) in at least `count` of the conditions.

    A condition that has not run at both, the last of any condition, counts as one that does not.
    """

    kind: Literal["changes"] = "changes"
    metric: str
    role: str
    direction: Literal["rises", "falls"]
    count: PositiveInt

    @model_validator(mode="after")
    def _reached(self) -> Self:
        if self.count > len(set(self.conditions)):
            raise ValueError(f"count {self.count} exceeds the {len(set(self.conditions))} conditions; lower it")
        return self


class RankOrder(_Claim):
    """Claim: over bystander cells, a rate falls (or rises) with a predictor.

    Spearman correlation over all selected cells, both sides ranked within each condition and with what a language does in every
    condition taken out, two-sided p. Holds when it lies on the claimed side of 0 with p below 0.05, fails when on the other,
    undecided between; a single condition cannot tell an order from its languages' own levels.
    """

    kind: Literal["rank_order"] = "rank_order"
    metric: Literal["contamination", "following"]
    predictor: Literal["typological_distance"]
    direction: Literal["falls", "rises"]


class SameRates(_Claim):
    """Claim: settings of the same cell have rates within a margin of each other.

    `between` is `conditions` (each pair in `pairs`, compared on the cells that are bystanders of both) or `phrasings` (within
    each condition, every pair of them).
    """

    kind: Literal["same_rates"] = "same_rates"
    metric: str
    between: Literal["conditions", "phrasings"]
    pairs: tuple[tuple[str, str], ...] = ()
    conditions: tuple[str, ...] = ()
    margin: float = Field(gt=0, lt=1)

    @property
    def terms(self) -> dict[str, tuple[Any, ...]]:
        """What the claim names; the conditions in its pairs too."""
        return super().terms | {"condition": (*self.conditions, *chain(*self.pairs))}


class CosinePredicts(_Claim):
    """Claim: in every condition, bystanders nearer to the source leak more.

    Spearman correlation of leakage with the cosine to the source over bystanders, seeds pooled; two-sided p, adjusted by Holm
    over the conditions. Holds when every one lies above 0 with p below 0.05, over all completions and, where known, over the
    finished ones; fails when one lies below by both, undecided otherwise and where one is undefined.
    """

    kind: Literal["cosine_predicts"] = "cosine_predicts"
    geometry: Literal["cosine", "tuned"]
    layer: NonNegativeInt


Claim = Annotated[RateBound | RateDifference | Changes | RankOrder | SameRates | CosinePredicts, Field(discriminator="kind")]


def check_terms(claims: Mapping[str, Claim], **known: Callable[[Any], str | None]) -> None:
    """Check what claims name before anything is run: a verdict must not say `not run` of what cannot.

    Args:
        claims: name → claim.
        **known: kind of term (condition, metric, role, layer) → says what is known instead of an unknown one, None of a known.

    Raises:
        ValueError: a claim names something unknown.
    """
    for name, claim in claims.items():
        for kind, terms in claim.terms.items():
            for term in terms if kind in known else ():
                if (others := known[kind](term)) is not None:
                    raise ValueError(f"claims.{name} names the {kind} '{term}'; known: {others}")


def among(*names: Any) -> Callable[[Any], str | None]:
    """Know the names given."""
    return lambda term: None if term in names else ", ".join(map(str, names))
