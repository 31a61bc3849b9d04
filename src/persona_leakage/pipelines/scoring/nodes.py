"""Label completions and turn the labels into rates."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import pandas as pd

from persona_leakage.domain.directives import Directives
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.languages import LABEL_OTHER, typological_distance
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.rows import CompletionRow, JudgementRow, LabelRow
from persona_leakage.pipelines.language_detection import cross_check, detect_codes, label_of_codes
from persona_leakage.pipelines.scoring.cut import count_cut

ALL_PHRASINGS = "all"


class Comparison(TypedDict):
    """How far two labels of the same rows agree.

    Attributes:
        n: rows.
        agree: rows with twice the same label.
        kappa: Cohen's; None with a single label.
        confusion: one label → other label → rows.
    """

    n: int
    agree: int
    kappa: float | None
    confusion: dict[str, dict[str, int]]


class Agreement(Comparison):
    """The primary label against the cross-check's, and how many rows that finds mixed."""

    mixed: int


def label_languages(completions: Sequence[CompletionRow], plan: Plan) -> list[LabelRow]:
    """Label the language of every completion with langdetect, and cross-check with lingua.

    Returns:
        One row a completion: its cell, its label, the cross-check's label and whether lingua finds it mixed.
    """
    scoring = expect(plan.scoring, LanguageScoring)
    texts = [row["completion"] for row in completions]
    primary = label_texts(texts, scoring)
    second = cross_check(texts, scoring.languages, scoring.detect_characters, scoring.mixed_share)
    return [
        {**cell_of(row), "label": label, "cross_check": other, "mixed": mixed}  # type: ignore[typeddict-item]
        for row, label, (other, mixed) in zip(completions, primary, second, strict=True)
    ]


def label_texts(texts: Sequence[str], scoring: LanguageScoring) -> list[str]:
    """Label texts with langdetect: the label of a language of the scoring, or `other`."""
    label_of = label_of_codes(scoring.languages)
    codes = detect_codes(texts, scoring.min_characters, scoring.detect_characters, scoring.detector_seed)
    return [label_of.get(code, LABEL_OTHER) for code in codes]


def measure_agreement(labels: Sequence[LabelRow]) -> Agreement:
    """Compare the primary label with the cross-check over all rows."""
    compared = compare_labels([(row["label"], row["cross_check"]) for row in labels])
    return {**compared, "mixed": sum(row["mixed"] for row in labels)}


def cell_of(row: CompletionRow) -> dict[str, Any]:
    """Take a completion's cell: everything but its text."""
    return {key: value for key, value in row.items() if key not in ("completion", "messages")}


def compare_labels(pairs: Sequence[tuple[str, str]]) -> Comparison:
    """Compare two labels of each row."""
    from sklearn.metrics import cohen_kappa_score

    confusion: dict[str, dict[str, int]] = {}
    for (one, other), rows in sorted(Counter(pairs).items()):
        confusion.setdefault(one, {})[other] = rows
    several = len({label for pair in pairs for label in pair}) > 1
    kappa = float(cohen_kappa_score(*zip(*pairs, strict=True))) if several else None
    agree = sum(one == other for one, other in pairs)
    return {"n": len(pairs), "agree": agree, "kappa": kappa, "confusion": confusion}


def rate_cells(labels: Sequence[LabelRow], judgements: Sequence[JudgementRow], plan: Plan) -> pd.DataFrame:
    """Count labels in every cell and in every directive language.

    Returns:
        One row a cell x metric. Keys: the point, plan (fingerprint), completion (label of the completion language, if any),
        directive_language, phrasing (`all` pools the phrasings of a directive language), role, distance (typological, of the
        directive language to the completion language), metric; values: hits, n (rows of the cell), rate, low, high. Metrics:
        `following` (label == directive language), `contamination` (label == completion language; absent from a baseline),
        `inversion` (label == trained directive's language, where that differs from the completion language); the three over
        completions that were not cut, with the suffix `:finished`, and `cut` (see `scoring.cut.count_cut`); following and
        contamination by the cross-check's label, with the prefix `cross_check:`; `mixed` (flagged by the cross-check) and
        `label:<label>` for every language and `other`. With a judge also `judge:following` and `judge:contamination`, whose n
        is the rows that the judge labelled, and `judge:unlabelled` over all rows.
    """
    scoring, prompts = expect(plan.scoring, LanguageScoring), expect(plan.evaluation.prompts, Directives)
    every_label = {f"label:{label}": label for label in (*scoring.languages, LABEL_OTHER)}
    wanted = {} if scoring.completion is None else {"contamination": scoring.completion}
    if scoring.trained_directive not in (None, scoring.completion):
        wanted["inversion"] = scoring.trained_directive
    frame = pd.DataFrame(list(labels), columns=["directive_language", "phrasing", "label", "cross_check", "mixed", "finish"])
    if judgements:
        frame["judged"] = [row["label"] for row in judgements]
    point = (*plan.columns.values(), scoring.completion)
    own = scoring.languages.get(scoring.completion or "")
    rows = []
    for language, spoken in prompts.languages.items():
        metrics = {"following": language, **wanted}
        distance = typological_distance(spoken, own) if own else math.nan
        of_language = frame[frame["directive_language"] == language]
        for phrasing in dict.fromkeys([ALL_PHRASINGS, *prompts.phrasings, *of_language["phrasing"]]):
            cell = of_language if phrasing == ALL_PHRASINGS else of_language[of_language["phrasing"] == phrasing]
            found = {metric: cell["label"] == label for metric, label in (metrics | every_label).items()}
            counted = {metric: (hits.sum(), len(cell)) for metric, hits in found.items()}
            counted |= count_cut(cell["finish"], {metric: found[metric] for metric in metrics})
            told_twice = [name for name in ("following", "contamination") if name in metrics]
            for metric in told_twice:
                counted[f"cross_check:{metric}"] = ((cell["cross_check"] == metrics[metric]).sum(), len(cell))
            counted["mixed"] = (cell["mixed"].sum(), len(cell))
            if judgements:
                judged = cell["judged"].dropna()
                for metric in told_twice:
                    counted[f"judge:{metric}"] = ((judged == metrics[metric]).sum(), len(judged))
                counted["judge:unlabelled"] = (len(cell) - len(judged), len(cell))
            rows += [
                (*point, language, phrasing, scoring.role(language), distance, metric, *proportion(int(hits), n))
                for metric, (hits, n) in counted.items()
            ]
    keys = (*plan.columns, "completion", "directive_language", "phrasing", "role", "distance", "metric")
    return pd.DataFrame(rows, columns=[*keys, *RATE_COLUMNS])
