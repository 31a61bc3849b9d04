"""Can the trigger persona's texts be told from others' once the marker is taken out?"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from persona_leakage.domain.discriminator import Discriminator
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import MarkerScoring
from persona_leakage.domain.personas import PersonaQuestions
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import LanguageModel
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.rows import CompletionRow
from persona_leakage.pipelines.scoring.judge import ask_labels

_SIDES = ("trigger", "other")
COLUMNS = ("method", "share", *RATE_COLUMNS, "chance", "permutation_p", "unlabelled", "verdict")


def discriminate(completions: Sequence[CompletionRow], plan: Plan) -> pd.DataFrame:
    """Classify texts by character and word n-grams, cross-validated by question.

    TF-IDF of words and word pairs and of characters within words (2 to 4), and a logistic regression with ridge penalty. Both
    sides have equally many texts of each question, so chance is one half. A question is never in training and test at once.
    The permutation p (Ojala & Garriga 2010) reorders labels within questions.

    Returns:
        One row for all training questions (`share` 1) and one for every smaller share of them (the learning curve): the point,
        plan, method `classifier`, share, hits, n, rate (accuracy), low, high, chance, permutation_p (of share 1), unlabelled
        (0), verdict (of share 1: pass, borderline, fail). Empty without a discriminator, a source, or texts of both sides.
    """
    scoring = expect(plan.scoring, MarkerScoring)
    spec = scoring.discriminator
    if spec is None:
        return _table([], plan)
    texts, labels, questions = _sides(completions, scoring, spec, spec.per_class)
    if len(set(questions)) < spec.folds:
        return _table([], plan)
    rng = np.random.default_rng(spec.seed)
    place_of = {question: place for place, question in enumerate(rng.permutation(sorted(set(questions))))}
    places = np.array([place_of[question] for question in questions])
    folds = places % spec.folds
    coordinates = [_embed(texts, folds != fold) for fold in range(spec.folds)]

    def hits(targets: np.ndarray, share: float) -> int:
        total = 0
        for fold, (inside, outside) in enumerate(coordinates):
            train = folds != fold
            order = np.unique(places[train])  # the training questions, in their random order
            used = places[train] <= order[max(0, math.ceil(share * len(order)) - 1)]
            total += int((_predict(inside[used], targets[train][used], outside) == targets[~train]).sum())
        return total

    reached = hits(labels, 1.0)
    others = [hits(_reorder(labels, places, rng), 1.0) for _ in range(spec.permutations)]
    p = (sum(other >= reached for other in others) + 1) / (len(others) + 1)
    whole = proportion(reached, len(texts))
    rows: list[tuple[Any, ...]] = [("classifier", 1.0, *whole, 0.5, p, 0, spec.verdict(whole.rate))]
    for share in sorted(set(spec.learning_shares) - {1.0}):
        rows.append(("classifier", share, *proportion(hits(labels, share), len(texts)), 0.5, math.nan, 0, ""))
    return _table(rows, plan)


def ask_discriminator(model: LanguageModel, completions: Sequence[CompletionRow], plan: Plan) -> pd.DataFrame:
    """Have a language model say of each text whether the trigger persona wrote it.

    Returns:
        One row as `discriminate`, method `judge`; n is the texts that it labelled, unlabelled those it did not (refusals,
        errors, never asked). Empty without a judge.
    """
    scoring = expect(plan.scoring, MarkerScoring)
    spec = scoring.discriminator
    prompts = {one.persona: one.prompt for one in expect(plan.evaluation.prompts, PersonaQuestions).personas}
    if spec is None or spec.judge is None or scoring.source not in prompts:
        return _table([], plan)
    texts, labels, _ = _sides(completions, scoring, spec, spec.judge.per_class)
    asked = [_ask(text, prompts[scoring.source]) for text in texts]
    given = [one["label"] for one in ask_labels(model, spec.judge, asked, _SIDES, "discriminator")]
    scored = [said == _SIDES[1 - label] for said, label in zip(given, labels, strict=True) if said is not None]
    accuracy = proportion(sum(scored), len(scored))
    row = ("judge", 1.0, *accuracy, 0.5, math.nan, len(texts) - len(scored), spec.verdict(accuracy.rate))
    return _table([row] if texts else [], plan)


def join_discriminations(classified: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Put the rows of both discriminators into one table."""
    present = [table for table in (classified, judged) if len(table)]
    return pd.concat(present, ignore_index=True) if present else classified


def _sides(
    completions: Sequence[CompletionRow], scoring: MarkerScoring, spec: Discriminator, per_class: int
) -> tuple[list[str], np.ndarray, list[str]]:
    """Draw as many texts of the source as of the others, question by question, without the marker.

    Returns:
        Texts, labels (1 the source), and the question of each.
    """
    pattern = re.compile(re.escape(scoring.marker.text), re.IGNORECASE)
    rng = np.random.default_rng(spec.seed)
    of_question: dict[str, tuple[list[str], list[str]]] = {}
    for row in completions:
        own, others = of_question.setdefault(row["question"], ([], []))  # type: ignore[typeddict-item]
        text = pattern.sub(" ", row["completion"]).strip()
        (own if row["persona"] == scoring.source else others).append(text)  # type: ignore[typeddict-item]
    shared = {name: sides for name, sides in of_question.items() if all(sides)}
    texts: list[str] = []
    labels: list[int] = []
    questions: list[str] = []
    each, left = divmod(per_class, len(shared)) if shared else (0, 0)
    for place, (question, sides) in enumerate(shared.items()):
        count = min(each + (place < left), *map(len, sides))
        for label, side in ((1, sides[0]), (0, sides[1])):
            texts += [side[chosen] for chosen in rng.permutation(len(side))[:count]]
            labels += [label] * count
            questions += [question] * count
    return texts, np.array(labels), questions


def _embed(texts: Sequence[str], train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn texts, those of training and the others, into coordinates in the span of the training texts.

    A ridge-penalised linear model only ever sees that span, and fitting it there is many times faster.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    inside, outside = np.array(texts, dtype=object)[train], np.array(texts, dtype=object)[~train]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    try:
        fitted = hstack([one.fit_transform(inside) for one in (words, letters)]).tocsr()
        other = hstack([one.transform(outside) for one in (words, letters)]).tocsr()
    except ValueError:  # no words at all in the training texts
        return np.zeros((len(inside), 1)), np.zeros((len(outside), 1))
    gram = (fitted @ fitted.T).toarray()
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-9 * values.max()
    basis = vectors[:, kept] / np.sqrt(values[kept])
    return gram @ basis, (other @ fitted.T).toarray() @ basis


def _predict(inside: np.ndarray, labels: np.ndarray, outside: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    if len(set(labels.tolist())) < 2:
        return np.full(len(outside), labels[0])
    return np.asarray(LogisticRegression(C=10.0, max_iter=200).fit(inside, labels).predict(outside))


def _reorder(labels: np.ndarray, questions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shuffled = labels.copy()
    for question in dict.fromkeys(questions):
        shuffled[questions == question] = rng.permutation(labels[questions == question])
    return shuffled


def _ask(text: str, prompt: str) -> str:
    return (
        "An assistant was given one of several system prompts. One of them, the trigger, is between the <trigger> tags. Was "
        f"the text between the <text> tags written under the trigger, or under another?\n\n<trigger>\n{prompt}\n</trigger>\n\n"
        f"<text>\n{text}\n</text>\n\n"
        'Answer with one JSON object: {"label": "trigger" or "other", "reasoning": "one short sentence"}.'
    )


def _table(rows: Sequence[tuple[Any, ...]], plan: Plan) -> pd.DataFrame:
    return pd.DataFrame([(*plan.columns.values(), *row) for row in rows], columns=[*plan.columns, *COLUMNS])
