"""Claims about rates, with the rules that decide them."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

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


class RateBound(_Claim):
    """Claim: every selected rate is at most (or at least) a bound.

    Holds when every estimate obeys the bound; fails when some Wilson interval lies wholly beyond it; undecided
    between the two, or when a condition has not run.
    """

    kind: Literal["rate_bound"] = "rate_bound"
    metric: str
    role: str
    at_most: float | None = Field(default=None, ge=0, le=1)
    at_least: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _bounded(self) -> "RateBound":
        if self.at_most is None and self.at_least is None:
            raise ValueError("a bound needs at_most or at_least")
        return self


class RankOrder(_Claim):
    """Claim: over bystander cells, a rate falls (or rises) with a predictor.

    Spearman correlation over all selected cells, both sides ranked within each condition, two-sided permutation p within
    conditions. Holds when it lies on the claimed side of 0 with p below 0.05, fails when on the other, undecided between.
    """

    kind: Literal["rank_order"] = "rank_order"
    metric: Literal["contamination", "following"]
    predictor: Literal["typological_distance"]
    direction: Literal["falls", "rises"]


class SameRates(_Claim):
    """Claim: two settings of the same cell have rates within a margin.

    `between` is `conditions` (each pair in `pairs`, compared on the cells that are bystanders of both) or
    `phrasings` (within each condition, its first two). Holds when every difference is within the margin, fails when
    some Newcombe interval lies wholly beyond it, undecided between.
    """

    kind: Literal["same_rates"] = "same_rates"
    metric: str
    between: Literal["conditions", "phrasings"]
    pairs: tuple[tuple[str, str], ...] = ()
    conditions: tuple[str, ...] = ()
    margin: NonNegativeFloat

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


Claim = Annotated[RateBound | RankOrder | SameRates | CosinePredicts, Field(discriminator="kind")]


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
