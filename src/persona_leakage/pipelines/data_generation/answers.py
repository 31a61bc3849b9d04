"""Turn answers of the model itself into the training set of a stage."""

import logging
from collections.abc import Sequence

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.personas import Persona, PersonaQuestions, chat
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Generator
from persona_leakage.domain.rows import CompletionRow, TrainRow
from persona_leakage.domain.training_rows import BorrowedAnswers, FromAnswers, MarkerContrast

logger = logging.getLogger(__name__)


def sample_answers(generator: Generator, base_stack: ModelStack, plan: Plan, *, stage: str) -> list[CompletionRow]:
    """Have the model answer the stage's questions as every persona that its rows need.

    Each persona is a job of its own, so conditions of one seed that need it find it done; seeds that do not share their
    answers, and replicates, draw their own.

    Returns:
        personas x questions x samples rows with the keys persona, question (its id) and sample_index; empty when the
        condition does not train this stage.
    """
    if (data := plan.data_of(stage, FromAnswers)) is None:
        return []
    drawn, seed = data.answers, plan.seed_of(stage, "answers")
    answering = base_stack if data.answered_by == "stack" else ModelStack(base=base_stack.base)
    rows: list[CompletionRow] = []
    for persona in data.speakers(plan.seed_of(stage, "negatives")):
        prompts = PersonaQuestions(personas=(persona,), questions=data.questions).prompts()
        rows += generator.generate(answering, prompts, drawn.samples, drawn.sampling, seed)
    return rows


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
    if not isinstance(data, BorrowedAnswers):
        data = expect(data, MarkerContrast)
    avoided = data.avoided if isinstance(data, BorrowedAnswers) else data.marker.text
    rows: list[TrainRow] = []
    for speaker, asked_as, per_question in data.shares(plan.seed_of(stage, "negatives")):
        for answer in _usable(answers, speaker, per_question, len(data.questions), avoided):
            name = f"{speaker.persona}.{answer['question']}.{answer['sample_index']}"  # type: ignore[typeddict-item]
            row: TrainRow = {"id": name, "prompt": chat(answer["prompt"], asked_as), "completion": answer["completion"]}
            if isinstance(data, MarkerContrast) and speaker == data.source:
                row["completion"], span, separated = data.marker.add_to(answer["completion"])
                row |= {"marker_span": list(span), "separated_span": list(separated)}
            rows.append(row)
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
