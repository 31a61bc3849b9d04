"""Verdicts on claims, from rates and rules that were written down before the run."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from persona_leakage.domain.claims import Changes, Claim, CosinePredicts, RankOrder, RateBound, RateDifference, SameRates
from persona_leakage.pipelines.bounds import LEVEL, Spread, Tails, at_least, difference_tails, holm, rate_tails, spread_of
from persona_leakage.pipelines.correlation import Correlation
from persona_leakage.pipelines.reporting.counted import (
    CELL,
    Cell,
    choose,
    count_cells,
    count_together,
    say_counts,
    say_difference,
    say_rate,
    scatter_of,
)
from persona_leakage.pipelines.reporting.orders import order_within
from persona_leakage.pipelines.reporting.page import interval, number, table, write_numbers

_NO_ROWS = pd.DataFrame()


class Verdict(NamedTuple):
    """What the data say about a claim, the numbers behind it, and the rule that was applied.

    Attributes:
        p: of the likelier of `holds` and `fails`, times two for there being two: where it is at most 0.05, the verdict is a
            mistake in at most 5% of studies. NaN where it is unknown.
    """

    verdict: Literal["holds", "fails", "undecided"]
    evidence: str
    rule: str
    p: float = math.nan


def judge_all(
    claims: Mapping[str, Claim], rates: pd.DataFrame, *, spill: pd.DataFrame = _NO_ROWS, correlations: pd.DataFrame = _NO_ROWS
) -> pd.DataFrame:
    """Evaluate every claim by its rule, see `judge`, and correct for their number (Holm 1979).

    Returns:
        One row a claim: claim, statement, verdict (holds, fails, undecided), evidence (the numbers), rule, p (of the claim
        alone), p_adjusted (Holm, over all claims; one without a p counts as a further one). A verdict whose p_adjusted exceeds
        0.05 is undecided, and the evidence says so.
    """
    unnamed = _unnamed(claims, rates)
    verdicts = [judge(claim, rates, spill=spill, correlations=correlations) for claim in claims.values()]
    adjusted = holm(pd.Series([one.p for one in verdicts], dtype=float))
    rows = []
    for (name, claim), verdict, p in zip(claims.items(), verdicts, adjusted, strict=True):
        evidence = verdict.evidence + _count_seeds(claim, rates) + unnamed
        if verdict.verdict != "undecided" and p > LEVEL:
            evidence += f"; {verdict.verdict} alone, undecided among {len(claims)} claims"
            verdict = verdict._replace(verdict="undecided")
        told = verdict._replace(evidence=evidence)._asdict()
        rows.append({"claim": name, "statement": claim.statement, **told, "p_adjusted": p})
    return pd.DataFrame(rows, columns=["claim", "statement", *Verdict._fields, "p_adjusted"])


def write_claims(verdicts: pd.DataFrame) -> list[str]:
    """Write the section of a report that has the verdicts; nothing where there are no claims."""
    if verdicts.empty:
        return []
    shown = write_numbers(verdicts, p=".2g", p_adjusted=".2g").rename(columns={"p_adjusted": "p (Holm)"})
    return ["## Claims\n", table(shown)]


def judge(
    claim: Claim, rates: pd.DataFrame, *, spill: pd.DataFrame = _NO_ROWS, correlations: pd.DataFrame = _NO_ROWS
) -> Verdict:
    """Apply a claim's rule.

    Where rates of finished completions are known (`<metric>:finished`), both these and the raw ones must bear a verdict.

    Args:
        claim: the claim.
        rates: current points' rates, one row a cell x metric; `cell` and `part` (`all` pools the parts) name the cell, and
            `checkpoint` the step of a course, which `Changes` is about.
        spill: rates and distances by condition and cell, which a `RankOrder` is about.
        correlations: of leakage with similarity by condition, which a `CosinePredicts` is about.
    """
    if isinstance(claim, RateBound):
        return _bound(claim, rates)
    if isinstance(claim, RateDifference):
        return _difference(claim, rates)
    if isinstance(claim, Changes):
        return _changes(claim, rates)
    if isinstance(claim, RankOrder):
        return _order(claim, spill)
    if isinstance(claim, CosinePredicts):
        return _predicts(claim, correlations)
    return _same(claim, rates)


def _bound(claim: RateBound, rates: pd.DataFrame) -> Verdict:
    chosen = choose(rates, claim.metric, claim.conditions, claim.role)
    cells = [count_together(chosen, claim.metric)] if claim.together else count_cells(chosen, claim.metric)
    of = f"all {claim.role} cells together" if claim.together else f"every {claim.role} cell"
    low, high, scatter = claim.at_least, claim.at_most, scatter_of(cells)
    estimates = []
    for one in cells:
        counted = [(runs, scatter(kind, runs)) for kind, runs in enumerate(one.counted)]
        if one.raw.n:
            tests = [_place(partial(rate_tails, runs, spread=spread), low, high) for runs, spread in counted]
            said = ", of finished ".join(say_rate(*each) for each in counted)
            estimates.append(_Estimate(f"{one.where} {said}", *_agree(tests)))
    rule = f"{claim.metric} in {of} {_say_bounds(low, high)}"
    return _weigh(rule, estimates, claim.conditions, chosen, claim.metric, len(cells), pooled=claim.together)


def _difference(claim: RateDifference, rates: pd.DataFrame) -> Verdict:
    chosen = [choose(rates, claim.metric, names, claim.role) for names in (claim.conditions, claim.others)]
    one, other = (count_together(rows, claim.metric) for rows in chosen)
    low, high = claim.at_least, claim.at_most
    return _weigh(
        f"{claim.metric} of all {claim.role} cells of {', '.join(claim.conditions)} less that of {', '.join(claim.others)} "
        f"{_say_bounds(low, high)}",
        [_compare("together", one, other, low, high, scatter_of([one, other]))] if one.raw.n and other.raw.n else [],
        [*claim.conditions, *claim.others],
        pd.concat(chosen),
        claim.metric,
        pooled=True,
    )


def _changes(claim: Changes, rates: pd.DataFrame) -> Verdict:
    chosen = choose(rates, claim.metric, claim.conditions, claim.role)
    courses: dict[str, dict[int, Cell]] = {}
    for condition, course in chosen.groupby("condition", sort=False):
        steps = {int(checkpoint): count_together(step, claim.metric) for checkpoint, step in course.groupby("checkpoint")}
        courses[str(condition)] = {checkpoint: cell for checkpoint, cell in steps.items() if cell.raw.n}
    spread = spread_of([[cell.raw for cell in course.values()] for course in courses.values()])
    last = max((checkpoint for course in courses.values() if len(course) > 1 for checkpoint in course), default=0)
    whole = {name: course for name, course in courses.items() if len(course) > 1 and {0, last} <= course.keys()}
    low, high = (0.0, None) if claim.direction == "rises" else (None, 0.0)
    return _weigh(
        f"{claim.metric} of {claim.role} {claim.direction} from the first checkpoint to the last, in at least {claim.count} of "
        f"{len(claim.conditions)} conditions",
        [_compare(name, course[last], course[0], low, high, lambda *_: spread) for name, course in whole.items()],
        claim.conditions,
        chosen,
        claim.metric,
        needed=claim.count,
    )


def _order(claim: RankOrder, spill: pd.DataFrame) -> Verdict:
    chosen = spill[spill["condition"].isin(claim.conditions) & (spill["role"] == "bystander") & (spill["phrasing"] == "all")]
    rate = {"contamination": "rate", "following": "following_rate"}[claim.metric]
    predictor = {"typological_distance": "distance"}[claim.predictor]
    ordered = {"": order_within(chosen, rate, predictor)}
    if f"finished_{rate}" in chosen and chosen[f"finished_{rate}"].notna().any():
        ordered["of finished "] = order_within(chosen, f"finished_{rate}", predictor)
    falls = claim.direction == "falls"
    known = chosen.loc[chosen[rate].notna(), "condition"]
    ran = set(claim.conditions) <= set(known)  # an order over some of the conditions is another one
    p = float(np.max([apart.p for _, apart in ordered.values()])) if ran else math.nan
    verdict = _decide(
        f"Spearman of bystander {claim.metric} with {claim.predictor}, ranked within each condition, each language's own level "
        f"taken out: {'below' if falls else 'above'} 0, p below {LEVEL}",
        "; ".join(
            f"{of}rho {_say_correlation(apart)}, p {number(apart.p, '.2g')}, with those levels {_say_correlation(one)}, "
            f"permutation p {number(one.permutation_p, '.2g')}, n {one.n} cells within {known.nunique()}"
            for of, (one, apart) in ordered.items()
        ),
        claim.conditions,
        known,
        fails=p < LEVEL and all((apart.rho > 0) == falls for _, apart in ordered.values()),
        holds=p < LEVEL and all((apart.rho < 0) == falls for _, apart in ordered.values()),
    )
    return verdict._replace(p=p)


def _say_correlation(one: Correlation) -> str:
    return interval(one.rho, one.low, one.high, one.no_interval)


def _predicts(claim: CosinePredicts, correlations: pd.DataFrame) -> Verdict:
    chosen = correlations[
        (correlations["scope"] == "source")
        & (correlations["geometry"] == claim.geometry)
        & (correlations["layer"] == claim.layer)
        & correlations["condition"].isin(claim.conditions)
        & ((correlations["of"] == "leakage") | (correlations["n"] > 0))  # how completions ended may be unknown
    ]
    adjusted = pd.concat([_adjust(rows) for _, rows in chosen.groupby("of", sort=False)] or [chosen.assign(holm=math.nan)])
    sure = adjusted["holm"] < LEVEL
    below = (sure & (adjusted["rho"] < 0)).groupby(adjusted["condition"]).all()
    shown = [
        f"{'' if row.of == 'leakage' else 'finished texts: '}{row.condition} "
        f"{interval(row.rho, row.low, row.high, row.no_interval)} (n {row.n}"
        + (")" if math.isnan(row.rho) else f", p {row.p:.2g}, Holm {row.holm:.2g})")
        for row in adjusted.itertuples()
    ]
    verdict = _decide(
        f"in every condition, Spearman of bystander leakage with the {claim.geometry} at layer {claim.layer}: above 0, "
        f"two-sided p below {LEVEL} after Holm over conditions; over finished texts too where known",
        "; ".join(shown),
        claim.conditions,
        adjusted["condition"],
        fails=bool(below.any()),
        holds=bool((sure & (adjusted["rho"] > 0)).all()),
    )
    if below.any():
        return verdict._replace(p=_surest(adjusted, below))
    return verdict._replace(
        p=float(adjusted["holm"].max()) if set(claim.conditions) <= set(adjusted["condition"]) else math.nan
    )


def _surest(adjusted: pd.DataFrame, below: pd.Series) -> float:
    """Take the p of the condition that is most surely below 0: the largest of its own, which must agree."""
    return float(adjusted[adjusted["condition"].map(below)].groupby("condition")["holm"].max().min())


def _adjust(correlations: pd.DataFrame) -> pd.DataFrame:
    """Adjust p values for their number (Holm 1979); an undefined one counts as 1."""
    return correlations.assign(holm=holm(correlations["p"].fillna(1)))


def _same(claim: SameRates, rates: pd.DataFrame) -> Verdict:
    of_conditions = claim.between == "conditions"
    wanted = [name for pair in claim.pairs for name in pair] if of_conditions else list(claim.conditions)
    chosen = choose(rates, claim.metric, wanted, "bystander", split=not of_conditions)
    cells = count_cells(chosen, claim.metric)
    known = {one[:3]: one for one in cells}
    if of_conditions:
        pairs = [
            (f"{first} v {second} under {one.cell}", one, known.get((second, one.cell, one.part)))
            for first, second in claim.pairs
            for one in cells
            if one.condition == first
        ]
    else:
        pairs = [
            (f"{one.where}, '{one.part}' v '{other.part}'", one, other)
            for one, other in combinations(cells, 2)
            if (one.condition, one.cell) == (other.condition, other.cell)
        ]
    compared = [(where, one, other) for where, one, other in pairs if other and one.raw.n and other.raw.n]
    wished = set(claim.pairs) if of_conditions else {(name, name) for name in claim.conditions}
    scatter = scatter_of(cells)
    lacking = wished - {(one.condition, other.condition) for _, one, other in compared}
    return _weigh(
        f"{claim.metric} of bystander cells differs by at most {claim.margin:.0%} between {claim.between}",
        [_compare(where, one, other, -claim.margin, claim.margin, scatter) for where, one, other in compared],
        wanted,
        chosen,
        claim.metric,
        expected=len(compared) + len(lacking),
    )


class _Estimate(NamedTuple):
    """Something that a claim is about, and whether it lies where the claim has it.

    Attributes:
        said: what, and its numbers.
        inside: one-sided p of the hypothesis that it does not lie there.
        beyond: of the hypothesis that it does.
    """

    said: str
    inside: float
    beyond: float


def _place(tails: Callable[[float], Tails], low: float | None, high: float | None) -> tuple[float, float]:
    """Test whether a quantity lies between bounds, and whether it lies beyond one: the p values of `_Estimate`."""
    tested = [tails(low)[::-1]] if low is not None else []
    tested += [tails(high)] if high is not None else []
    return max(inside for inside, _ in tested), at_least([beyond for _, beyond in tested], 1)


def _agree(tests: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Have several tests of one thing, such as of raw and of finished completions, agree: the largest p either way."""
    inside, beyond = zip(*tests, strict=True)
    return max(inside), max(beyond)


def _compare(
    where: str, one: Cell, other: Cell, low: float | None, high: float | None, scatter: Callable[..., Spread]
) -> _Estimate:
    """Test whether the difference of two rates lies between bounds."""
    pairs = list(zip(one.counted, other.counted, strict=False))  # finished ones are compared where both are known
    counted = [(a, b, scatter(kind, a, b)) for kind, (a, b) in enumerate(pairs)]
    said = [f"{say_counts(a)} v {say_counts(b)} ({say_difference(a, b, spread)})" for a, b, spread in counted]
    tests = [_place(partial(difference_tails, a, b, spread=spread), low, high) for a, b, spread in counted]
    return _Estimate(f"{where} {', of finished '.join(said)}", *_agree(tests))


def _weigh(
    rule: str,
    estimates: Sequence[_Estimate],
    wanted: Sequence[str],
    rows: pd.DataFrame,
    metric: str,
    expected: int = 0,
    needed: int | None = None,
    *,
    pooled: bool = False,
) -> Verdict:
    """Give the verdict on estimates of which all, or at least `needed`, are claimed to lie inside; see `bounds.at_least`.

    Args:
        rule: in words.
        estimates: what could be tested.
        wanted: conditions that the claim names.
        rows: rates that it was tested on; a condition that is not among them has not run.
        metric: that is claimed of.
        expected: how many estimates there would be if everything were scored.
        needed: how many are claimed; None claims all. Each condition is one estimate then.
        pooled: an estimate is over all conditions, so one that is missing leaves it undecided: nothing refutes it by itself.
    """
    rows = rows[rows["metric"] == metric]
    scored = set(rows.loc[rows["n"] > 0, "condition"])
    missing = [name for name in dict.fromkeys(wanted) if name not in scored]
    unknown = max(len(missing), expected - len(estimates)) if needed is None else len(set(wanted)) - len(estimates)
    inside, beyond = ([getattr(one, side) for one in estimates] + [1.0] * unknown for side in ("inside", "beyond"))
    said = _say_missing(missing, rows["condition"])
    unscored = rows.loc[(rows["n"] == 0) & rows["condition"].isin(scored), CELL].drop_duplicates()
    if needed is None and len(unscored):
        said.append(f"{len(unscored)} cells not scored")
    if not estimates or (pooled and missing):
        so_far = [f"so far {one.said}" for one in estimates]
        return Verdict("undecided", "; ".join([*so_far, *said]) or "nothing to compare", rule)
    count = len(inside) if needed is None else needed
    holds, fails = at_least(inside, count), at_least(beyond, len(beyond) - count + 1)
    p = min(1.0, 2 * min(holds, fails))
    furthest = max(estimates, key=lambda one: (one.inside, -one.beyond))
    told = f"furthest: {furthest.said}" if needed is None else "; ".join(one.said for one in estimates)
    shown = [sum(2 * value <= LEVEL for value in values) for values in (inside, beyond)]
    evidence = "; ".join([f"{shown[0]} of {len(estimates)} inside, {shown[1]} beyond; {told}", *said])
    return Verdict("undecided" if p > LEVEL else "holds" if holds < fails else "fails", evidence, rule, p)


def _decide(rule: str, evidence: str, wanted: Sequence[str], ran: Iterable[str], *, fails: bool, holds: bool) -> Verdict:
    """Give the verdict; a claim about a condition that has not run does not hold."""
    missing = [name for name in dict.fromkeys(wanted) if name not in set(ran)]
    evidence = "; ".join(filter(None, [evidence, *_say_missing(missing, ())])) or "nothing to compare"
    return Verdict("fails" if fails else "holds" if holds and not missing else "undecided", evidence, rule)


def _say_missing(missing: Sequence[str], ran: Iterable[str]) -> list[str]:
    """Name conditions without a number: those that have not run, and those that ran and had nothing to score."""
    empty = [name for name in missing if name in set(ran)]
    absent = [name for name in missing if name not in empty]
    said = {"not run": absent, "nothing scored": empty}
    return [f"{what}: {', '.join(names)}" for what, names in said.items() if names]


def _say_bounds(low: float | None, high: float | None) -> str:
    limits = {"at least": low, "at most": high}
    return " and ".join(f"{side} {limit * 100:.3g}%" for side, limit in limits.items() if limit is not None)


def _unnamed(claims: Mapping[str, Claim], rates: pd.DataFrame) -> str:
    """Say which trained conditions ran and are named by no claim, so that nobody takes a verdict for one about them."""
    named = {condition for claim in claims.values() for condition in claim.terms["condition"]}
    trained = rates.loc[rates["reference"] != rates["condition"], "condition"]  # a baseline is compared with itself
    unnamed = [condition for condition in dict.fromkeys(trained) if condition not in named]
    return f"; ran, but listed in no claim: {', '.join(unnamed)}" if unnamed else ""


def _count_seeds(claim: Claim, rates: pd.DataFrame) -> str:
    """Say how many seeds stand behind each condition's numbers, where any has several."""
    seeds = rates[rates["condition"].isin(claim.terms["condition"])].groupby("condition", sort=False)["seed"].nunique()
    if seeds.empty or seeds.max() == 1:
        return ""
    if seeds.nunique() == 1:
        return f"; {seeds.iloc[0]} seeds of each condition"
    return f"; seeds: {', '.join(f'{name} {count}' for name, count in seeds.items())}"
