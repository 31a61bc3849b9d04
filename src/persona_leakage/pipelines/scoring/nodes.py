"""Label completions and turn the labels into rates."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.languages import LABEL_OTHER
from persona_leakage.domain.plan import Directives, LanguageScoring, Plan
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.rows import CompletionRow, JudgementRow, LabelRow
from persona_leakage.pipelines.language_detection import cross_check, detect_codes, label_of_codes

ALL_PHRASINGS = "all"


class Agreement(TypedDict):
    """How far the cross-check agrees with the primary label.

    `confusion` is primary label → cross-check label → rows; `kappa` is Cohen's, None with a single label.
    """

    n: int
    agree: int
    kappa: float | None
    mixed: int
    confusion: dict[str, dict[str, int]]


def label_languages(completions: Sequence[CompletionRow], plan: Plan) -> list[LabelRow]:
    """Label the language of every completion with langdetect, and cross-check with lingua.

    Returns:
        One row a completion: its cell, its label, the cross-check's label and whether lingua finds it mixed.
    """
    scoring = expect(plan.scoring, LanguageScoring)
    texts = [row["completion"] for row in completions]
    labels = label_of_codes(scoring.languages)
    primary = detect_codes(texts, scoring.min_characters, scoring.detect_characters, scoring.detector_seed)
    second = cross_check(texts, scoring.languages, scoring.detect_characters, scoring.mixed_share)
    return [
        {
            **cell_of(row),  # type: ignore[typeddict-item]
            "label": labels.get(code, LABEL_OTHER),
            "cross_check": other,
            "mixed": mixed,
        }
        for row, code, (other, mixed) in zip(completions, primary, second, strict=True)
    ]


def measure_agreement(labels: Sequence[LabelRow]) -> Agreement:
    """Compare the primary label with the cross-check over all rows."""
    agree, kappa, confusion = compare_labels([(row["label"], row["cross_check"]) for row in labels])
    return {
        "n": len(labels),
        "agree": agree,
        "kappa": kappa,
        "mixed": sum(row["mixed"] for row in labels),
        "confusion": confusion,
    }


def cell_of(row: CompletionRow) -> dict[str, Any]:
    """Take a completion's cell: everything but its text."""
    return {key: value for key, value in row.items() if key not in ("completion", "messages")}


def compare_labels(pairs: Sequence[tuple[str, str]]) -> tuple[int, float | None, dict[str, dict[str, int]]]:
    """Compare two labellings of the same rows.

    Returns:
        Rows on which they agree, Cohen's kappa (None with a single label), and one label → other label → rows.
    """
    from sklearn.metrics import cohen_kappa_score

    confusion: dict[str, dict[str, int]] = {}
    for (one, other), rows in sorted(Counter(pairs).items()):
        confusion.setdefault(one, {})[other] = rows
    several = len({label for pair in pairs for label in pair}) > 1
    kappa = float(cohen_kappa_score(*zip(*pairs, strict=True))) if several else None
    return sum(one == other for one, other in pairs), kappa, confusion


def rate_cells(labels: Sequence[LabelRow], judgements: Sequence[JudgementRow], plan: Plan) -> pd.DataFrame:
    """Count labels in every cell and in every directive language.

    Returns:
        One row a cell x metric. Keys: condition, seed, plan (fingerprint), directive_language, phrasing (`all` pools the
        phrasings of a directive language), role, metric; values: hits, n (rows of the cell), rate, low, high. Metrics:
        `following` (label == directive language), `contamination` (label == completion language; absent from a baseline),
        `inversion` (label == trained directive's language, where that differs from the completion language), `mixed`
        (flagged by the cross-check) and `label:<label>` for every language and `other`. With a judge also `judge:following`
        and `judge:contamination`, whose n is the rows that the judge labelled, and `judge:unlabelled` over all rows.
    """
    scoring, prompts = expect(plan.scoring, LanguageScoring), expect(plan.evaluation.prompts, Directives)
    metrics = {"following": None, **{f"label:{label}": label for label in (*scoring.languages, LABEL_OTHER)}}
    if scoring.completion is not None:
        metrics["contamination"] = scoring.completion
    if scoring.trained_directive not in (None, scoring.completion):
        metrics["inversion"] = scoring.trained_directive
    frame = pd.DataFrame(list(labels), columns=None if labels else ["directive_language", "phrasing", "label", "mixed"])
    if judgements:
        frame["judged"] = [row["label"] for row in judgements]
    rows = []
    for language in prompts.languages:
        of_language = frame[frame["directive_language"] == language]
        for phrasing in dict.fromkeys([ALL_PHRASINGS, *prompts.phrasings, *of_language["phrasing"]]):
            cell = of_language if phrasing == ALL_PHRASINGS else of_language[of_language["phrasing"] == phrasing]
            hits = {metric: int((cell["label"] == (label or language)).sum()) for metric, label in metrics.items()}
            counted = {metric: (k, len(cell)) for metric, k in hits.items()}
            counted["mixed"] = (int(cell["mixed"].sum()), len(cell))
            if judgements:
                judged = cell["judged"].dropna()
                counted["judge:following"] = (int((judged == language).sum()), len(judged))
                if scoring.completion is not None:
                    counted["judge:contamination"] = (int((judged == scoring.completion).sum()), len(judged))
                counted["judge:unlabelled"] = (len(cell) - len(judged), len(cell))
            rows += [
                (
                    plan.condition,
                    plan.seed,
                    plan.fingerprint,
                    language,
                    phrasing,
                    scoring.role(language),
                    metric,
                    *proportion(k, n),
                )
                for metric, (k, n) in counted.items()
            ]
    keys = ("condition", "seed", "plan", "directive_language", "phrasing", "role", "metric")
    return pd.DataFrame(rows, columns=[*keys, *RATE_COLUMNS])
