"""Have the base model make the texts of a stage: its own answers to a bank of questions, in the completion language."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import pandas as pd

from persona_leakage.domain.directives import KEPT, NOT_KEPT, AnswerSource, DirectivePairs
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect, seed_from
from persona_leakage.domain.language_scoring import LanguageScoring
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.personas import chat
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Generator
from persona_leakage.domain.rates import RATE_COLUMNS, proportion
from persona_leakage.domain.rows import CompletionRow, PromptRow
from persona_leakage.pipelines.data_generation.nodes import GateRow
from persona_leakage.pipelines.language_detection import cross_check, detect_codes

logger = logging.getLogger(__name__)

ANSWER_COLUMNS = ("language", *RATE_COLUMNS, *NOT_KEPT)


def answer_bank(
    generator: Generator, base_stack: ModelStack, question_bank: Sequence[Mapping[str, str]], plan: Plan, *, stage: str
) -> list[dict[str, Any]]:
    """Have the base model answer the bank in the completion language until enough answers can be kept.

    No more questions are asked than texts are needed. The first round draws as many answers to each as make up the rows, every
    further one as many as are missing at the share kept so far. A round is one job, so an interrupted run finds those before
    done, and so do conditions of one seed that train the same language. The rounds end early where `samples` to each
    question cannot suffice: where even at the upper end of the kept share's Wilson 95% interval they would be too few.

    An answer is kept if it ended by itself, is long enough, is in the completion language to langdetect and to lingua, and has
    not been kept before.

    Returns:
        All answers with the keys question (its id), sample_index and outcome (`kept`, or the reason why not), the first answer
        to every question before any second one; empty where texts are not own answers.

    Raises:
        UserError: the bank is empty, or too few answers are kept.
    """
    data = plan.data_of(stage, DirectivePairs)
    if data is None or (own := data.answered) is None:
        return []
    prompts = [_ask(row, data, own) for row in question_bank[: data.rows]]
    if not prompts:
        raise UserError("question_bank is empty; give it questions to answer")
    answering, seed = ModelStack(base=base_stack.base), plan.seed_of(stage, "answers")
    answers: list[dict[str, Any]] = []
    known: set[str] = set()
    drawn, more = 0, min(ceil(data.rows / len(prompts)), own.samples)
    while True:
        # a further round draws other random numbers: with the same it would get the same answers
        drawn_by = seed_from(f"answers {drawn} {seed}") if drawn else seed
        sampled = generator.generate(answering, prompts, more, own.sampling, drawn_by)
        in_order = sorted(sampled, key=lambda row: row["sample_index"])  # stable: questions stay in theirs
        outcomes = _judge(in_order, data, own, plan, known)
        answers += [
            {**row, "sample_index": drawn + row["sample_index"], "outcome": outcome}
            for row, outcome in zip(in_order, outcomes, strict=True)
        ]
        drawn += more
        kept, asked = len(known), len(answers)
        logger.info("%d of %d own answers in %s are kept", kept, asked, data.completion.name)
        if kept >= data.rows:
            return answers
        left = own.samples - drawn
        if not left or proportion(kept, asked).high * own.samples * len(prompts) < data.rows:
            raise UserError(_too_few(answers, data, own, len(prompts), stage))
        missing = (
            ceil((data.rows - kept) * asked / kept / len(prompts)) if kept else drawn
        )  # of none kept no share says how many
        more = min(left, missing)


def texts_of_answers(answers: Sequence[Mapping[str, Any]], data: DirectivePairs) -> list[dict[str, str]]:
    """Take the first answers that are kept as texts.

    Returns:
        At most the stage's number of texts with `id` (question and sample), `question` (as it was asked) and the text under the
        completion language's code.
    """
    return [
        {
            "id": f"{row['question']}.{row['sample_index']}",
            "question": row["prompt"],
            data.completion.code: row["completion"].strip(),
        }
        for row in answers
        if row["outcome"] == KEPT
    ][: data.rows]


def tabulate_answers(gates: Sequence[GateRow], plan: Plan) -> pd.DataFrame:
    """Tabulate what became of a point's own answers.

    Returns:
        One row with the point, plan, language, hits (answers kept), n (answers asked for) and their rate with its interval, and
        the number not kept for each reason; no row where texts are not own answers.
    """
    columns = [*plan.columns, *ANSWER_COLUMNS]
    of = {one["gate"]: one for one in gates}
    if KEPT not in of:
        return pd.DataFrame(columns=columns)
    counts = {name: round(of[name]["value"] * of[name]["n"]) for name in (KEPT, *NOT_KEPT)}
    rate = proportion(counts[KEPT], of[KEPT]["n"])
    row = (*plan.columns.values(), of[KEPT]["language"], *rate, *(counts[name] for name in NOT_KEPT))
    return pd.DataFrame([row], columns=columns)


def _ask(row: Mapping[str, str], data: DirectivePairs, own: AnswerSource) -> PromptRow:
    said = own.wording.replace("{language}", data.completion.name).replace("{question}", row["question"])
    return {"prompt": said, "messages": chat(said, None), "question": row["id"]}


def _judge(answers: Sequence[CompletionRow], data: DirectivePairs, own: AnswerSource, plan: Plan, known: set[str]) -> list[str]:
    """Say of every answer whether it is kept, or why not; `known` are the texts kept so far, which those kept join."""
    scoring = expect(plan.scoring, LanguageScoring)
    texts = [row["completion"].strip() for row in answers]
    codes = detect_codes(texts, scoring.min_characters, scoring.detect_characters, scoring.detector_seed)
    checked = cross_check(texts, scoring.languages, scoring.detect_characters, scoring.mixed_share)
    outcomes = []
    for row, text, code, (label, _) in zip(answers, texts, codes, checked, strict=True):
        if row["finish"] != "stop":
            outcome = "cut"
        elif len(text) < own.min_characters:
            outcome = "short"
        elif code not in data.completion.detected_as or label != scoring.completion:
            outcome = "wrong_language"
        else:
            outcome = "twice" if text in known else KEPT
            known.add(text)
        outcomes.append(outcome)
    return outcomes


def _too_few(answers: Sequence[Mapping[str, Any]], data: DirectivePairs, own: AnswerSource, questions: int, stage: str) -> str:
    counts, key = Counter(row["outcome"] for row in answers), f"stages.{stage}"
    why = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in NOT_KEPT if counts[name])
    return (
        f"stage '{stage}' needs {data.rows:,} texts: of {len(answers):,} own answers in {data.completion.name} "
        f"{counts[KEPT]:,} were kept ({why}), and {own.samples} to each of {questions:,} questions cannot suffice; lower "
        f"{key}.rows, raise {key}.source.samples, or change the source's wording or max_tokens"
    )
