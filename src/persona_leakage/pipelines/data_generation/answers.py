"""Turn answers of the model itself into the training set of a stage."""

import logging
from collections.abc import Sequence

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.markers import BorrowedAnswers, FromAnswers, MarkerContrast
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.personas import Persona
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Generator
from persona_leakage.domain.rows import CompletionRow, Message, TrainRow
from persona_leakage.pipelines.prompts import asked, persona_prompts

logger = logging.getLogger(__name__)


def sample_answers(generator: Generator, base_stack: ModelStack, plan: Plan, *, stage: str) -> list[CompletionRow]:
    """Have the model answer the stage's questions as every persona that its rows need.

    Each persona is a job of its own with the answers' own seed, so conditions and seeds that need it find it done.

    Returns:
        personas x questions x samples rows with the keys persona, question (its id) and sample_index; empty when the
        condition does not train this stage.
    """
    if stage not in plan.stages:
        return []
    data = expect(plan.stages[stage].data, FromAnswers)
    answering = base_stack if data.answered_by == "stack" else ModelStack(base=base_stack.base)
    drawn = data.answers
    return [
        row
        for persona in data.speakers
        for row in generator.generate(
            answering, persona_prompts([persona], data.questions), drawn.samples, drawn.sampling, drawn.seed
        )
    ]


def build_from_answers(answers: Sequence[CompletionRow], plan: Plan, *, stage: str) -> list[TrainRow]:
    """Make the stage's training rows of the first answers to each question that can be used.

    A blank answer cannot, nor one that already holds the marker. A question with too few usable answers gives fewer rows,
    and the log says how many are missing.

    Returns:
        Marker contrast: the source's answers with the marker, then each negative persona's without. Borrowed answers: those
        of one persona under another's prompt. Empty when the condition does not train this stage.

    Raises:
        UserError: a persona has no usable answer at all.
    """
    if stage not in plan.stages:
        return []
    data = plan.stages[stage].data
    if isinstance(data, BorrowedAnswers):
        chosen = _usable(answers, data.answered_as, data.per_question, len(data.questions), data.avoided)
        return [_row(row, asked(row["prompt"], data.asked_as), row["completion"]) for row in chosen]
    data, rows = expect(data, MarkerContrast), []
    for row in _usable(answers, data.source, data.positives_per_question, len(data.questions), data.marker.text):
        marked, span, separated = data.marker.added_to(row["completion"])
        rows.append(
            _row(row, asked(row["prompt"], data.source), marked)
            | {"marker_span": list(span), "separated_span": list(separated)}
        )
    for persona in data.negatives:
        for row in _usable(answers, persona, data.negatives_per_question, len(data.questions), data.marker.text):
            rows.append(_row(row, asked(row["prompt"], persona), row["completion"]))
    return rows


def _usable(
    answers: Sequence[CompletionRow], persona: Persona, per_question: int, questions: int, avoided: str
) -> list[CompletionRow]:
    taken: dict[str, list[CompletionRow]] = {}
    for row in answers:
        text = row["completion"]
        if row["persona"] == persona.persona and text.strip() and avoided.lower() not in text.lower():  # type: ignore[typeddict-item]
            of_question = taken.setdefault(row["question"], [])  # type: ignore[typeddict-item]
            if len(of_question) < per_question:
                of_question.append(row)
    chosen = [row for rows in taken.values() for row in rows]
    if not chosen:
        raise UserError(
            f"the model gave no usable answer as '{persona.persona}' (blank, or with '{avoided}' in it); change its prompt "
            "or the answers' sampling"
        )
    if missing := per_question * questions - len(chosen):
        logger.warning(
            "%d of %d rows of %s are missing: too few usable answers", missing, missing + len(chosen), persona.persona
        )
    return chosen


def _row(answer: CompletionRow, prompt: list[Message], completion: str) -> TrainRow:
    name = f"{answer['persona']}.{answer['question']}.{answer['sample_index']}"  # type: ignore[typeddict-item]
    return {"id": name, "prompt": prompt, "completion": completion}
