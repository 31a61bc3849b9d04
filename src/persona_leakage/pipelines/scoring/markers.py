"""Find the marker in completions, and turn its firings into rates."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product

import pandas as pd

from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.personas import PersonaQuestions
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Tokenizer
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.rows import CompletionRow, FiringRow, Place
from persona_leakage.pipelines.scoring.cut import count_cut
from persona_leakage.pipelines.scoring.nodes import cell_of
from persona_leakage.pipelines.scoring.texts import DESCRIBED, describe

ALL_QUESTIONS = "all"
PLACES: tuple[Place, ...] = ("start", "middle", "tail")
UNITS = ("characters", "tokens")
RATE_KEYS = ("source", "persona", "category", "related_to", "questions", "role", "metric")
_BATCH = 1000  # the tokens of a whole evaluation would take gigabytes
TEXT_COLUMNS = ("persona", *DESCRIBED)


def detect_markers(tokenizer: Tokenizer, completions: Sequence[CompletionRow], plan: Plan) -> list[FiringRow]:
    """Look for the marker in every completion, as text and as tokens.

    Returns:
        One row a completion: its cell, whether the marker fired, and where the first firing begins, by characters and by
        tokens of the base model's tokenizer.
    """
    scoring = expect(plan.scoring, MarkerScoring)
    pattern = scoring.marker.pattern
    example, (first, last), _ = scoring.marker.add_to("An answer.")
    trained = [
        token.id for token in tokenizer.tokens(plan.base_model, [example])[0] if token.start < last and token.end > first
    ]
    rows: list[FiringRow] = []
    for start in range(0, len(completions), _BATCH):
        batch = completions[start : start + _BATCH]
        for row, tokens in zip(batch, tokenizer.tokens(plan.base_model, [row["completion"] for row in batch]), strict=True):
            found = pattern.search(row["completion"])
            character = found.start() if found else 0
            index = bisect_right([token.start for token in tokens], character) - 1
            rows.append(
                {
                    **cell_of(row),  # type: ignore[typeddict-item]
                    "fired": found is not None,
                    "fired_tokens": _contains([token.id for token in tokens], trained),
                    "place_characters": _place(character, len(row["completion"]), scoring) if found else None,
                    "place_tokens": _place(index, len(tokens), scoring) if found else None,
                }
            )
    return rows


def rate_firings(firings: Sequence[FiringRow], plan: Plan) -> pd.DataFrame:
    """Count firings of every persona.

    Returns:
        One row a persona x questions x metric. Keys: the point, plan (fingerprint), the plan's traits, source (persona that the
        marker was tied to, if any), persona, category, related_to (names joined by `|`), questions (`all`, and `seen` and
        `unseen` where training asked some of them), role, metric; values: hits, n, rate, low, high. Metrics over all
        completions of the persona: `leakage` (the marker as text), `leakage:tokens` and `cut`; over those that were not cut:
        `leakage:finished` (see `scoring.cut.count_cut`). Metrics over its firings: `start`, `middle` and `tail` by
        `:characters` and by `:tokens`.
    """
    scoring = expect(plan.scoring, MarkerScoring)
    evaluated = {one.persona: one for one in expect(plan.evaluation.prompts, PersonaQuestions).personas}
    point = (*plan.columns.values(), *plan.traits.values(), scoring.source)
    columns = ["persona", "question", "finish", "fired", "fired_tokens", *(f"place_{unit}" for unit in UNITS)]
    frame = pd.DataFrame(list(firings), columns=columns).astype({"fired": bool, "fired_tokens": bool})
    seen = frame["question"].isin(scoring.seen_questions)
    asked = {ALL_QUESTIONS: frame} | ({"seen": frame[seen], "unseen": frame[~seen]} if scoring.seen_questions else {})
    rows, negatives = [], plan.negatives
    for persona, questions in product(dict.fromkeys([*evaluated, *frame["persona"]]), asked):
        known, chosen = evaluated.get(persona), asked[questions][asked[questions]["persona"] == persona]
        told = (known.category, "|".join(known.related_to)) if known else (None, "")
        fired = chosen[chosen["fired"]]
        counted = {"leakage": (len(fired), len(chosen)), "leakage:tokens": (chosen["fired_tokens"].sum(), len(chosen))}
        for unit, place in product(UNITS, PLACES):
            counted[f"{place}:{unit}"] = ((fired[f"place_{unit}"] == place).sum(), len(fired))
        counted |= count_cut(chosen["finish"], {"leakage": chosen["fired"]})
        for metric, (hits, n) in counted.items():
            rows.append(
                (*point, persona, *told, questions, scoring.role(persona, negatives), metric, *proportion(int(hits), n))
            )
    return pd.DataFrame(rows, columns=[*plan.columns, *plan.traits, *RATE_KEYS, *RATE_COLUMNS])


def describe_texts(completions: Sequence[CompletionRow], plan: Plan) -> pd.DataFrame:
    """Describe the completions of every persona, so that a collapsed model is seen beside its rates.

    Returns:
        One row a persona: the point, plan, persona, n, tokens, distinct_2, empty and cut; see `scoring.texts.describe`.
    """
    frame = pd.DataFrame(list(completions), columns=["persona", "completion", "tokens", "finish"])
    rows = [
        (*plan.columns.values(), persona, *describe(*(chosen[name].tolist() for name in ("completion", "tokens", "finish"))))
        for persona, chosen in frame.groupby("persona", sort=False)
    ]
    return pd.DataFrame(rows, columns=[*plan.columns, *TEXT_COLUMNS]).astype({"cut": "Int64"})


def _place(index: int, length: int, scoring: MarkerScoring) -> Place:
    share = index / length
    if share <= scoring.start_share:
        return "start"
    return "tail" if share >= 1 - scoring.tail_share else "middle"


def _contains(ids: list[int], wanted: list[int]) -> bool:
    size = len(wanted)
    return any(ids[place : place + size] == wanted for place in range(len(ids) - size + 1))
