"""Turn source texts into the training set of a stage."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from typing_extensions import TypedDict

from persona_leakage.domain.directives import KEPT, NOT_KEPT, DirectivePairs
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.languages import Language
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.rows import Message, TrainRow
from persona_leakage.pipelines.language_detection import detect_codes

logger = logging.getLogger(__name__)

_NO_LANGUAGE = ("id", "topic", "question", "en")  # columns of a text that are no translation


class SkippedRow(TypedDict):
    """A text that every condition leaves out, and why."""

    id: str
    reason: str


class GateRow(TypedDict):
    """One validation gate on the texts of one language; `value` is compared with [low, high]."""

    gate: str
    language: str
    n: int
    value: float
    low: float
    high: float
    passed: bool
    failing_ids: list[str]


def measure_gates(
    texts: Sequence[dict[str, str]],
    skip_list: Sequence[SkippedRow],
    plan: Plan,
    answers: Sequence[Mapping[str, Any]] = (),
    *,
    stage: str,
) -> list[GateRow]:
    """Measure the validation gates on the texts the stage will train on.

    Gate `language`: share of texts that langdetect assigns to the completion language. Gate `median_length_ratio`: median
    characters per character of the English text. Gate `length_outliers`: share of texts whose ratio leaves the language's
    band. English texts and own answers are only checked for their language. The denominator of these shares is the texts in
    use. Of own answers there are shares of all that were asked for beside, which no gate fails: how many were `kept`, and how
    many were not, for each reason.

    Returns:
        One row a gate, empty when the condition does not train this stage.

    Raises:
        UserError: a text is missing in the completion language, or the skip-list names an unknown text.
    """
    if (data := plan.data_of(stage, DirectivePairs)) is None:
        return []
    language, scoring = data.completion, expect(plan.scoring, LanguageScoring)
    used = [row for _, row in texts_in_use(texts, skip_list, data)]
    taken = _texts_of(texts, data)
    reached = len(texts) if len(taken) < data.rows else taken[-1][0] + 1
    if passed_over := reached - len(taken):
        logger.warning(
            "%d source texts without a %s version are passed over; %d have one", passed_over, language.name, len(taken)
        )
    ids, chosen = [row["id"] for row in used], [row[language.code] for row in used]
    codes = detect_codes(chosen, scoring.min_characters, scoring.detect_characters, scoring.detector_seed)
    wrong = [name for name, code in zip(ids, codes, strict=True) if code not in language.detected_as]
    gates = [gate("language", language, len(used), (len(used) - len(wrong)) / len(used), data.gate_language, 1.0, wrong)]
    if data.answered:
        outcomes, asked = Counter(row["outcome"] for row in answers), len(answers)
        return [gate(name, language, asked, outcomes[name] / asked, 0.0, 1.0, []) for name in (KEPT, *NOT_KEPT)] + gates
    if language.code != "en":
        ratios = [len(text) / len(row["en"]) for text, row in zip(chosen, used, strict=True)]
        outside = [name for name, ratio in zip(ids, ratios, strict=True) if not language.length_ratio.holds(ratio)]
        band = language.median_length_ratio
        gates += [
            gate("median_length_ratio", language, len(used), median(ratios), band.low, band.high, []),
            gate("length_outliers", language, len(used), len(outside) / len(used), 0.0, data.gate_outliers, outside),
        ]
    return gates


def build_train_set(
    texts: Sequence[dict[str, str]], skip_list: Sequence[SkippedRow], gates: Sequence[GateRow], plan: Plan, *, stage: str
) -> list[TrainRow]:
    """Pair each text in the completion language with a directive.

    The phrasings are cycled by the text's position before the skip-list is applied, so a skipped text changes no other row.

    Returns:
        One row a text, empty when the condition does not train this stage.

    Raises:
        UserError: a gate failed.
    """
    if failed := [one for one in gates if not one["passed"]]:
        said = "; ".join(
            f"{one['gate']} of {one['language']} is {one['value']:.3f}, outside [{one['low']}, {one['high']}]"
            + (f" ({', '.join(one['failing_ids'][:5])})" if one["failing_ids"] else "")
            for one in failed
        )
        raise UserError(f"the texts of stage '{stage}' fail their gates: {said}; mend or skip-list them")
    if (data := plan.data_of(stage, DirectivePairs)) is None:
        return []
    rows: list[TrainRow] = []
    for position, text in texts_in_use(texts, skip_list, data):
        directive = ""
        if data.directive:
            directive = data.phrasings[position % len(data.phrasings)].format(language=data.directive.name)
        turn: Message = {"role": "user", "content": directive}
        rows.append({"id": text["id"], "prompt": [turn], "completion": text[data.completion.code]})
    return rows


def texts_in_use(
    texts: Sequence[dict[str, str]], skip_list: Sequence[SkippedRow], data: DirectivePairs
) -> list[tuple[int, dict[str, str]]]:
    """Take the language's first rows, then drop the skipped ones; keep each text's position.

    Texts that have other languages than those with the completion language are passed over: one may add texts in a few
    languages to texts in many. A text that lacks nothing but the completion language is a mistake.

    Raises:
        UserError: the skip-list names an unknown text, no text is left, or one has no version in the completion language.
    """
    skipped, known = {row["id"] for row in skip_list}, {row["id"] for row in texts}
    if (unknown := skipped - known) and not data.answered:  # its answers are none that the list could know
        raise UserError(f"the skip-list names texts that do not exist: {', '.join(sorted(unknown)[:5])}; remove them")
    used = [(position, row) for position, row in _texts_of(texts, data) if row["id"] not in skipped]
    if not used:
        raise UserError("no texts are left to train on; the source is empty or the skip-list names every text")
    code = data.completion.code
    if not data.answered and (empty := [row["id"] for _, row in used if not row.get("en")]):
        raise UserError(f"source texts without English text: {', '.join(empty[:5])}; add it or skip-list them")
    if missing := [row["id"] for _, row in used if not row.get(code)]:
        raise UserError(
            f"{len(missing)} of {len(used)} source texts have no {data.completion.name} version (key '{code}', "
            f"first: {missing[0]}); add it to the texts or choose another condition"
        )
    return used


def _texts_of(texts: Sequence[dict[str, str]], data: DirectivePairs) -> list[tuple[int, dict[str, str]]]:
    """Take the first rows of texts of a kind that has the completion language; of all, where none has it."""
    code, numbered = data.completion.code, list(enumerate(texts))
    kinds = {_languages(row) - {code} for row in texts if row.get(code)}
    return [one for one in numbered if not kinds or _languages(one[1]) - {code} in kinds][: data.rows]


def _languages(row: Mapping[str, str]) -> frozenset[str]:
    return frozenset(key for key, text in row.items() if text and key not in _NO_LANGUAGE)


def gate(name: str, language: Language, n: int, value: float, low: float, high: float, failing: list[str]) -> GateRow:
    """Compare a value over n texts with the interval it must lie in, and name the texts that fail."""
    passed = low <= value <= high
    return GateRow(gate=name, language=language.name, n=n, value=value, low=low, high=high, passed=passed, failing_ids=failing)
