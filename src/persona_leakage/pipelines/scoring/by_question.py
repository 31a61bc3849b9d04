"""Counts of every question apart, which a mixed model is fitted to."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rows import FiringRow, LabelRow

COUNTS = ("hits", "n", "finished_hits", "finished_n")
FIRING_KEYS = ("source", "persona", "role", "question", "metric")
_LABEL_KEYS = ("completion", "directive_language", "role", "phrasing", "metric")


def count_firings(firings: Sequence[FiringRow], plan: Plan) -> pd.DataFrame:
    """Count the firings of every persona question by question.

    Returns:
        One row a persona x question with completions: the point, plan (fingerprint), the plan's traits, source, persona, role,
        question, metric (`leakage`); hits and n over all completions, finished_hits and finished_n over those that were not
        cut (both 0 where any of the persona's completions does not say how it ended).
    """
    scoring, negatives = expect(plan.scoring, MarkerScoring), plan.negatives
    frame = pd.DataFrame(list(firings), columns=["persona", "question", "fired", "finish"])
    counted = _count(frame, "persona", "question", frame["fired"])
    roles = [scoring.role(persona, negatives) for persona in counted["persona"]]
    counted = counted.assign(source=scoring.source, role=roles, metric="leakage")
    return _of_point(counted, {**plan.columns, **plan.traits}, FIRING_KEYS)


def count_labels(labels: Sequence[LabelRow], plan: Plan) -> pd.DataFrame:
    """Count the labels of every directive language phrasing by phrasing.

    Returns:
        One row a directive language x phrasing with completions x metric (`following`, and `contamination` where a completion
        language is trained; see `scoring.nodes.rate_cells`): the point, plan (fingerprint), completion, directive_language,
        role, phrasing, metric, and the counts of `count_firings`.
    """
    scoring = expect(plan.scoring, LanguageScoring)
    frame = pd.DataFrame(list(labels), columns=["directive_language", "phrasing", "label", "finish"])
    metrics = {"following": frame["label"] == frame["directive_language"]}
    if scoring.completion is not None:
        metrics["contamination"] = frame["label"] == scoring.completion
    parts = [_count(frame, "directive_language", "phrasing", of).assign(metric=name) for name, of in metrics.items()]
    counted = pd.concat(parts, ignore_index=True)
    counted = counted.assign(completion=scoring.completion, role=[scoring.role(name) for name in counted["directive_language"]])
    return _of_point(counted, plan.columns, _LABEL_KEYS)


def _count(frame: pd.DataFrame, cell: str, question: str, counted: pd.Series) -> pd.DataFrame:
    known = frame["finish"].notna().groupby(frame[cell]).transform("all")
    finished = known & (frame["finish"] != "length")
    whether = {"hits": counted.astype(bool), "n": True, "finished_n": finished}
    told = frame[[cell, question]].assign(**whether, finished_hits=whether["hits"] & finished)
    return told.groupby([cell, question], sort=False)[list(COUNTS)].sum().astype(int).reset_index()


def _of_point(counted: pd.DataFrame, point: dict[str, Any], keys: Sequence[str]) -> pd.DataFrame:
    return counted.assign(**point)[[*point, *keys, *COUNTS]]
