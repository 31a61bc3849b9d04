"""Find the marker in completions, and turn its firings into rates."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import Marker, MarkerScoring
from persona_leakage.domain.personas import PersonaQuestions
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Token, Tokenizer
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.rows import CompletionRow, FiringRow, Place
from persona_leakage.pipelines.scoring.nodes import cell_of

ALL_QUESTIONS = "all"
PLACES: tuple[Place, ...] = ("start", "middle", "tail")
UNITS = ("characters", "tokens")
RATE_KEYS = ("persona", "category", "questions", "role", "metric")
_BATCH = 1000  # the tokens of a whole evaluation would take gigabytes
TEXT_COLUMNS = ("persona", "n", "tokens", "distinct_2", "empty", "cut")


def detect_markers(tokenizer: Tokenizer, completions: Sequence[CompletionRow], plan: Plan) -> list[FiringRow]:
    """Look for the marker in every completion, as text and as tokens.

    Returns:
        One row a completion: its cell, whether the marker fired, and where the first firing begins, by characters and by
        tokens of the base model's tokenizer.
    """
    scoring = expect(plan.scoring, MarkerScoring)
    pattern = re.compile(re.escape(scoring.marker.text), re.IGNORECASE)
    trained = _trained_tokens(tokenizer, scoring.marker, plan)
    rows: list[FiringRow] = []
    for start in range(0, len(completions), _BATCH):
        batch = completions[start : start + _BATCH]
        for row, tokens in zip(batch, tokenizer.tokens(plan.base_model, [row["completion"] for row in batch]), strict=True):
            text = row["completion"]
            found = pattern.search(text)
            places: tuple[Place | None, Place | None] = (None, None)
            if found:
                token = bisect_right([token.start for token in tokens], found.start()) - 1
                places = (_place(found.start(), len(text), scoring), _place(token, len(tokens), scoring))
            rows.append(
                {
                    **cell_of(row),  # type: ignore[typeddict-item]
                    "fired": found is not None,
                    "fired_tokens": _contains([token.id for token in tokens], trained),
                    "place_characters": places[0],
                    "place_tokens": places[1],
                }
            )
    return rows


def rate_firings(firings: Sequence[FiringRow], plan: Plan) -> pd.DataFrame:
    """Count firings of every persona.

    Returns:
        One row a persona x questions x metric. Keys: the point, plan (fingerprint), persona, category, questions (`all`, and
        `seen` and `unseen` where training asked some of them), role, metric; values: hits, n, rate, low, high. Metrics over
        all completions of the persona: `leakage` (the marker as text) and `leakage:tokens`. Metrics over its firings:
        `start`, `middle` and `tail` by `:characters` and by `:tokens`.
    """
    scoring = expect(plan.scoring, MarkerScoring)
    categories = {one.persona: one.category for one in expect(plan.evaluation.prompts, PersonaQuestions).personas}
    rows = []
    for persona, questions, chosen in _cells(firings, list(categories), scoring):
        fired = [row for row in chosen if row["fired"]]
        counted = {
            "leakage": (len(fired), len(chosen)),
            "leakage:tokens": (sum(row["fired_tokens"] for row in chosen), len(chosen)),
        }
        for unit in UNITS:
            for place in PLACES:
                hits = sum(row[f"place_{unit}"] == place for row in fired)  # type: ignore[literal-required]
                counted[f"{place}:{unit}"] = (hits, len(fired))
        for metric, (hits, n) in counted.items():
            keys = (persona, categories.get(persona), questions, scoring.role(persona), metric)
            rows.append((*plan.point.values(), plan.fingerprint, *keys, *proportion(hits, n)))
    return pd.DataFrame(rows, columns=[*plan.point, "plan", *RATE_KEYS, *RATE_COLUMNS])


def describe_texts(completions: Sequence[CompletionRow], plan: Plan) -> pd.DataFrame:
    """Describe the completions of every persona, so that a collapsed model is seen beside its rates.

    Returns:
        One row a persona: the point, plan, persona, n (completions), tokens (mean length; NaN where rows have none),
        distinct_2 (different pairs of neighbouring words over all such pairs; Li et al. 2016; NaN without any), empty (blank
        completions), cut (those that reached the token limit).
    """
    by_persona: dict[str, list[CompletionRow]] = {}
    for row in completions:
        by_persona.setdefault(row["persona"], []).append(row)  # type: ignore[typeddict-item]
    rows = []
    for persona, chosen in by_persona.items():
        words = [row["completion"].split() for row in chosen]
        pairs = [pair for text in words for pair in pairwise(text)]
        lengths = [row["tokens"] for row in chosen if "tokens" in row]
        rows.append(
            (
                *plan.point.values(),
                plan.fingerprint,
                persona,
                len(chosen),
                sum(lengths) / len(lengths) if lengths else float("nan"),
                len(set(pairs)) / len(pairs) if pairs else float("nan"),
                sum(not row["completion"].strip() for row in chosen),
                sum(row.get("finish") == "length" for row in chosen),
            )
        )
    return pd.DataFrame(rows, columns=[*plan.point, "plan", *TEXT_COLUMNS])


def _cells(
    firings: Sequence[FiringRow], personas: Sequence[str], scoring: MarkerScoring
) -> Iterator[tuple[str, str, list[FiringRow]]]:
    by_persona: dict[str, list[FiringRow]] = {name: [] for name in personas}
    for row in firings:
        by_persona.setdefault(row["persona"], []).append(row)
    for persona, rows in by_persona.items():
        yield persona, ALL_QUESTIONS, rows
        if scoring.seen_questions:
            yield persona, "seen", [row for row in rows if row["question"] in scoring.seen_questions]
            yield persona, "unseen", [row for row in rows if row["question"] not in scoring.seen_questions]


def _place(index: int, length: int, scoring: MarkerScoring) -> Place:
    share = index / length
    if share <= scoring.start_share:
        return "start"
    return "tail" if share >= 1 - scoring.tail_share else "middle"


def _trained_tokens(tokenizer: Tokenizer, marker: Marker, plan: Plan) -> list[int]:
    text, (start, end), _ = marker.added_to("An answer.")
    tokens: list[Token] = tokenizer.tokens(plan.base_model, [text])[0]
    return [token.id for token in tokens if token.start < end and token.end > start]


def _contains(ids: list[int], wanted: list[int]) -> bool:
    size = len(wanted)
    return any(ids[place : place + size] == wanted for place in range(len(ids) - size + 1))
