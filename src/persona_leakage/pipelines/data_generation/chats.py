"""Turn chats, and the model's own answers to their questions, into the training set of a stage."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.personas import chat
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Generator, Trainer
from persona_leakage.domain.rows import CompletionRow, Message, PromptRow, TrainRow, name_of
from persona_leakage.domain.training_rows import Chats

logger = logging.getLogger(__name__)

_ROLES = ("system", "user", "assistant")


def read_chats(chat_sources: Mapping[str, Callable[[], Sequence[dict[str, Any]]]], plan: Plan, *, stage: str) -> list[TrainRow]:
    """Take the first chats of the stage's source; no other is read.

    A row is either a question with an English answer (keys `question` and `en`) or a chat (key `messages`), of which the last
    assistant turn is trained and the turns before it are its prompt. The persona's system turn, if the stage has one, replaces
    the chat's own. A chat whose answer is blank is left out, and the log says how many.

    Returns:
        One row a chat, empty when the condition does not train this stage.

    Raises:
        UserError: the source is empty, a row is neither, or an id repeats.
    """
    if (data := plan.data_of(stage, Chats)) is None:
        return []
    rows: list[TrainRow] = []
    seen: dict[str, int] = {}
    for place, row in enumerate(chat_sources[data.source]()[: data.rows]):
        here, given = f"row {place + 1} of {data.source}", row.get("messages")
        given_name = next((row[key] for key in ("id", "prompt_id") if row.get(key) not in (None, "")), f"row-{place}")
        name = name_of(given_name)
        if isinstance(given, list):
            turns = read_turns(given, here)
            last = max((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
            if not any(turn["role"] == "user" for turn in turns[:last]):
                raise UserError(f"{here} has no question before an answer; mend or remove it")
            prompt, completion = turns[:last], turns[last]["content"]
            if data.asked_as is not None:
                prompt = [*chat("", data.asked_as)[:1], *(turn for turn in prompt if turn["role"] != "system")]
        elif all(isinstance(row.get(key), str) and row[key] for key in ("question", "en")):
            prompt, completion = chat(row["question"], data.asked_as), row["en"]
        else:
            raise UserError(f"{here} has neither 'messages' nor 'question' and 'en'; add them")
        if (first := seen.setdefault(name, place + 1)) != place + 1:
            raise UserError(f"{here} repeats the id '{name}' of row {first}; make it unique")
        if completion.strip():
            rows.append({"id": name, "prompt": prompt, "completion": completion})
    if not rows:
        raise UserError(f"{data.source} is empty; give the dataset rows to train on")
    if blank := len(seen) - len(rows):
        logger.warning("%d of %d chats of %s are left out: their answer is blank", blank, len(seen), data.source)
    return rows


def read_turns(given: Sequence[Any], here: str) -> list[Message]:
    """Take the turns of a chat, without further keys.

    Raises:
        UserError: one is no turn of the system, the user or the assistant.
    """
    for turn in given:
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            raise UserError(f"{here} has a turn without 'role' and 'content'; mend or remove it (roles: {', '.join(_ROLES)})")
    return [{"role": turn["role"], "content": turn["content"]} for turn in given]


def answer_chats(
    generator: Generator, trainer: Trainer, base_stack: ModelStack, chats: Sequence[TrainRow], plan: Plan, *, stage: str
) -> list[CompletionRow]:
    """Have the base model itself answer the prompts of the chats that are short enough to be trained on.

    Returns:
        chats x samples rows with the key chat (its id); empty when the stage does not ask for them.

    Raises:
        UserError: every chat is too long; nothing is sampled then.
    """
    data = plan.data_of(stage, Chats)
    if data is None or (own := data.own_answers) is None:
        return []
    prompts: list[PromptRow] = [
        {"prompt": row["prompt"][-1]["content"], "messages": row["prompt"], "chat": row["id"]}  # type: ignore[typeddict-unknown-key]
        for row in trainer.fitting(base_stack.base, chats, plan.stages[stage].recipe)
    ]
    answering, seed = ModelStack(base=base_stack.base), plan.seed_of(stage, "answers")
    return generator.generate(answering, prompts, own.samples, own.sampling, seed)


def build_from_chats(chats: Sequence[TrainRow], own_answers: Sequence[CompletionRow]) -> list[TrainRow]:
    """Put the chats and the model's own answers that are not blank into one training set."""
    prompts = {row["id"]: row["prompt"] for row in chats}
    own: list[TrainRow] = [
        {
            "id": f"{row['chat']}.own.{row['sample_index']}",  # type: ignore[typeddict-item]
            "prompt": prompts[row["chat"]],  # type: ignore[typeddict-item]
            "completion": row["completion"],
        }
        for row in own_answers
        if row["completion"].strip()
    ]
    return [*chats, *own]
