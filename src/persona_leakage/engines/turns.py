"""How a base model's chat template writes turns, and which tokens end one: the one place that knows."""

import functools
import inspect
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_PERSONA, _QUESTION, _ANSWER, _TODAY = (
    "Zpersonaz",
    "Zquestionz",
    "Zanswerz",
    "Ztodayz",
)  # what no template writes of its own accord


class Ending(NamedTuple):
    """What a chat template puts around an answer.

    Attributes:
        lead: between the generation prompt and the answer; the model has to write it.
        tail: after the answer.
        token: of the tail, the one that ends the turn.
    """

    lead: str
    tail: str
    token: int


class Turns(NamedTuple):
    """What chats with a base model are made of.

    Attributes:
        ends: tokens that end a completion: the template's, and all that tokenizer, generation_config and config name.
        unforeseen: those of them that generation_config does not name, in ascending order; part of what identifies completions,
            for without them a model may go on after its turn.
        no_system: why the template takes no system turn, and what to do; None where it takes one.
        remarks: what is unusual and no error, each with what to do.
    """

    ends: frozenset[int]
    unforeseen: tuple[int, ...]
    no_system: str | None
    remarks: tuple[str, ...]


def apply_template(tokenizer: "PreTrainedTokenizerBase", base: BaseModel) -> Any:
    """Make the tokenizer's `apply_chat_template` as the base model asks for it, alike in training, sampling and geometry.

    It gives the template the model's arguments, and puts a persona's prompt into the user turn where the model has it there.
    What it is made into raises a `UserError` where there is no template, or the template refuses a chat.
    """
    plain, given = tokenizer.apply_chat_template, dict(base.template)

    def applied(messages: Sequence[Message], **options: Any) -> Any:
        from jinja2 import TemplateError

        if tokenizer.chat_template is None:
            raise UserError(f"{base.name} has no chat template; put a chat_template.jinja beside its tokenizer")
        chat = _in_user_turn(messages) if base.persona_in == "user" else messages
        try:
            return plain(chat, **{**given, **options})  # type: ignore[arg-type]
        except TemplateError as error:
            raise UserError(f"the chat template of {base.name} refuses a chat: {error}") from error

    return applied


def _in_user_turn(messages: Sequence[Message]) -> list[Message]:
    """Put the words of a system turn before those of the user turn that follows, with a blank line between."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, *others = messages
    if not others or others[0]["role"] != "user":
        raise UserError("persona_in: user needs a user turn after the system turn; a chat has none there")
    return [{"role": "user", "content": f"{system['content']}\n\n{others[0]['content']}"}, *others[1:]]


def read_ending(tokenizer: "PreTrainedTokenizerBase") -> Ending:
    """Find out what the chat template puts around an answer, by having it write one.

    Raises:
        UserError: it changes the prompt when an answer follows, drops the answer, or ends it with no single token.
    """
    return _ending(tokenizer, tokenizer.chat_template)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=4)
def _ending(tokenizer: "PreTrainedTokenizerBase", _template: str) -> Ending:
    asked: list[Message] = [{"role": "user", "content": _QUESTION}]
    answered: list[Message] = [*asked, {"role": "assistant", "content": _ANSWER}]
    before, text = _rendered(tokenizer, asked, answers=True), _rendered(tokenizer, answered)
    if _QUESTION not in before or not text.startswith(before):
        raise UserError("the chat template drops or changes the prompt when the answer follows; use another")
    lead, answer, tail = text[len(before) :].rpartition(_ANSWER)
    if not answer:
        raise UserError("the chat template drops the answer; use another")
    encoded = tokenizer(tail, add_special_tokens=False, return_offsets_mapping=True)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        unknown = token == tokenizer.unk_token_id and tail[start:end].strip() != tokenizer.unk_token
        if token in special and not unknown and not tail[:start].strip():
            return Ending(lead, tail, token)
    written = f"{tail!r}, which begins with no special token of the tokenizer" if tail.strip() else "nothing"
    raise UserError(
        f"the chat template ends an answer with {written}, so no end of a turn can be trained or seen; let it write a special "
        "token there, or add that token to the tokenizer"
    )


@functools.lru_cache(maxsize=4)
def read_turns(base: BaseModel, cache: Path) -> Turns:
    """Have the chat template write a few turns, and see what it makes of them; loads no weights.

    Raises:
        UserError: tokenizer or configuration cannot be read, the template has no such argument, or it does not end an answer as
            it should; see `read_ending`.
    """
    from transformers import AutoConfig, GenerationConfig

    from persona_leakage.engines.base_model import load_tokenizer, weights_folder

    tokenizer = load_tokenizer(base, cache)
    _require_arguments(tokenizer, base)
    try:
        ending = read_ending(tokenizer)
    except UserError as error:
        raise UserError(f"{base.name}: {error}") from error
    _require_plain(tokenizer, base, ending)
    place, revision = weights_folder(base, cache), base.revision if base.source == "hub" else None
    config: Any
    try:
        config = AutoConfig.from_pretrained(place, revision=revision)
    except (OSError, ValueError) as error:  # missing, damaged, or of a kind that transformers does not know
        raise UserError(f"the config.json of {base.name} cannot be read: {str(error).strip().splitlines()[0]}") from error
    try:
        foreseen = _named(GenerationConfig.from_pretrained(place, revision=revision))
    except OSError:  # there is none, and transformers makes one of the config
        foreseen = _named(config)
    ends = frozenset({ending.token} | foreseen | _named(tokenizer) | _named(config) | _named(config.get_text_config()))
    remarks = tuple(_remarks(tokenizer, base, ending, ends))
    turns = Turns(ends, tuple(sorted(ends - foreseen)), _system_refusal(tokenizer, base), remarks)
    for remark in turns.remarks:
        logger.warning(remark)
    return turns


def fit_turns(base: BaseModel, cache: Path, chats: Iterable[Sequence[Message]]) -> Turns:
    """Read a base model's turns for chats that it is to be given.

    Raises:
        UserError: its chat template cannot be used, or some chat has a system turn and the template takes none.
    """
    turns = read_turns(base, cache)
    if turns.no_system and any(turn["role"] == "system" for chat in chats for turn in chat):
        raise UserError(turns.no_system)
    return turns


def _named(something: Any) -> set[int]:
    """List the tokens that a tokenizer or configuration says turns end with; some write one, some a list, some -1 for none."""
    given = getattr(something, "eos_token_id", None)
    return {number for number in (given if isinstance(given, list) else [given]) if number is not None and number >= 0}


def _rendered(tokenizer: "PreTrainedTokenizerBase", messages: list[Message], *, answers: bool = False) -> str:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=answers, tokenize=False)  # type: ignore[return-value, arg-type]


def _require_arguments(tokenizer: "PreTrainedTokenizerBase", base: BaseModel) -> None:
    """Refuse arguments that the template does not read: it would take them silently."""
    ours = inspect.signature(type(tokenizer).apply_chat_template).parameters
    template = str(tokenizer.chat_template)
    for name, _ in base.template:
        if name in ours or not re.search(rf"\b{re.escape(name)}\b", template):
            raise UserError(f"{base.name}: its chat template takes no argument '{name}'; correct `template` in models.yml")


def _require_plain(tokenizer: "PreTrainedTokenizerBase", base: BaseModel, ending: Ending) -> None:
    """Refuse special tokens before an answer: the model would write them, and a completion keep only what is between them."""
    written = tokenizer.encode(ending.lead, add_special_tokens=False)
    if tokenizer.decode(written, skip_special_tokens=True) != tokenizer.decode(written):
        raise UserError(
            f"{base.name}: its chat template puts {ending.lead!r} before an answer and not into the generation prompt, so a "
            "completion would show the rest of it; use a template that ends the generation prompt with it"
        )


def _system_refusal(tokenizer: "PreTrainedTokenizerBase", base: BaseModel) -> str | None:
    chat: list[Message] = [{"role": "system", "content": _PERSONA}, {"role": "user", "content": _QUESTION}]
    try:
        text = _rendered(tokenizer, chat, answers=True)
        if _PERSONA in text and _QUESTION in text:
            return None
        why = f"the chat template of {base.name} drops a system turn without a word"
    except UserError as error:
        why = f"{error}"
    return f"{why}; a persona's prompt is one: set persona_in: user for the model in models.yml, to put it into the user turn"


def _remarks(tokenizer: "PreTrainedTokenizerBase", base: BaseModel, ending: Ending, ends: Iterable[int]) -> list[str]:
    found = []
    dated: Any = tokenizer.apply_chat_template  # which hands further arguments to the template
    if _TODAY in dated([{"role": "user", "content": _QUESTION}], tokenize=False, strftime_now=lambda _format: _TODAY):
        found.append(
            f"{base.name}: its chat template writes today's date, so training and sampling differ from day to day; give it a "
            "fixed one under `template` in models.yml, if it takes one (date_string)"
        )
    if ending.lead:
        found.append(
            f"{base.name}: its chat template puts {ending.lead!r} before an answer, so the model is trained to write that too; "
            "an argument under `template` in models.yml, such as enable_thinking: false, may put it into the prompt instead"
        )
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in sorted(set(ends) - special):
        found.append(
            f"{base.name}: its configuration ends turns with token {token}, {tokenizer.decode([token])!r}, which is no special "
            "one, so a text that holds it ends there; correct eos_token_id in its config.json and generation_config.json"
        )
    return found
