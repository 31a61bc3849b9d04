"""Rows of the JSONL datasets: what each column means."""

import json
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_serializer, model_validator, with_config
from typing_extensions import TypedDict

from persona_leakage.domain.frozen import Frozen

Name = Annotated[str, Field(min_length=1)]  # an empty one would be a missing one in every table
Finish = Literal["stop", "length"]  # the model ended its turn, or was cut at `max_tokens`


def whole(text: str) -> str:
    """Put U+FFFD in the place of halves of characters (lone surrogates), which can be neither sent nor stored."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def name_of(value: Any) -> str:
    """Write a value of JSON as the name that it is where it tells rows apart: 1, 1.0 and "1" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class ParallelText(Frozen):
    """One answer-like paragraph in several languages; every further key is a language code and its text.

    Attributes:
        id: unique name.
        topic: what it is about, in English.
        question: the user turn it answers, in English.
        en: the paragraph in English, which the length ratios of the other languages refer to.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]

    id: str
    topic: str
    question: str
    en: str


class BankQuestion(Frozen):
    """One question that the base model answers to make texts of its own.

    Attributes:
        id: unique name.
        topic: what it is about, in English.
        question: in English; a paragraph answers it in any language.
    """

    id: Name
    topic: str
    question: str = Field(pattern=r"\S")


class TrainRow(TypedDict):
    """One training example: the turns before the completion, and the completion.

    Where the completion carries a marker, `marker_span` is where it stands and `separated_span` where it stands with its
    separator: first character and the one after the last.
    """

    id: str
    prompt: list[Message]
    completion: str
    marker_span: NotRequired[list[int]]
    separated_span: NotRequired[list[int]]


@with_config(ConfigDict(extra="allow"))
class PromptRow(TypedDict):
    """One evaluation prompt; the further keys are its cell."""

    prompt: str
    messages: list[Message]
    directive_language: NotRequired[str]
    phrasing: NotRequired[str]
    persona: NotRequired[str]
    question: NotRequired[str]


@with_config(ConfigDict(extra="allow"))
class CompletionRow(TypedDict):
    """One sampled completion of a prompt, with the prompt's cell."""

    prompt: str
    sample_index: int
    completion: str
    tokens: int
    finish: Finish


class OutsideRow(Frozen):
    """A row made elsewhere.

    As a dictionary it has those of our own keys that were given, and all others in `further`, where they break none of ours.
    """

    model_config = ConfigDict(extra="allow")

    @model_serializer
    def _further_apart(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {**own, "further": self.model_extra}


class PublishedRate(Frozen):
    """How often the original study found the completion language under a directive.

    Attributes:
        condition: of the pair directive → completion.
        directive_language: label of the language that was asked for.
        hits: completions in the completion language.
        n: completions.
    """

    condition: Name
    directive_language: Name
    hits: NonNegativeInt
    n: PositiveInt

    @model_validator(mode="after")
    def _counted(self) -> "PublishedRate":
        if self.hits > self.n:
            raise ValueError(f"hits {self.hits} is more than n {self.n}")
        return self


class OutsideCompletion(OutsideRow):
    """A completion of a directive made elsewhere; further keys are carried along into the labels.

    Attributes:
        directive_language: name of a language as a directive says it ("Mandarin Chinese"), or its label.
        prompt: the directive.
        sample_index: tells the samples of a prompt apart.
        completion: the text.
    """

    directive_language: str
    prompt: str
    sample_index: NonNegativeInt
    completion: str


@with_config(ConfigDict(extra="allow"))
class LabelRow(TypedDict):
    """The labels of one completion, with its cell.

    Attributes:
        label: by langdetect, the primary label.
        cross_check: by lingua, over as much of the text.
        mixed: lingua found a second language in at least the configured share of the text.
        finish: how the completion ended; missing where that is unknown.
    """

    prompt: str
    sample_index: int
    label: str
    cross_check: str
    mixed: bool
    finish: NotRequired[Finish]


@with_config(ConfigDict(extra="allow"))
class JudgementRow(TypedDict):
    """What the judge made of one completion, with its cell.

    Attributes:
        outcome: `label`, `parse_error` (an answer without a readable label), `refused` (by the judge), `api_error` or
            `unscored` (never asked); only `label` counts in a rate's denominator.
        label: the judge's label, None for every other outcome.
        recovered: the label was read from an answer that was cut or is no JSON.
        cause: why there is no label.
    """

    prompt: str
    sample_index: int
    outcome: Literal["label", "parse_error", "refused", "api_error", "unscored"]
    label: str | None
    reasoning: str
    recovered: bool
    cause: str


class OutsideMarkerCompletion(OutsideRow):
    """A completion of a persona made elsewhere; further keys are carried along into the firings.

    Attributes:
        cell: condition it belongs to.
        persona: whose prompt was answered.
        is_source: the persona is the one that the marker was tied to.
        question: what was asked.
        sample_index: tells the samples of a question apart.
        completion: the text.
        design: cells of one design are replicates; without a name a cell is a design of its own.
    """

    cell: Name
    persona: Name
    is_source: bool
    question: str
    sample_index: NonNegativeInt
    completion: str
    design: Name | None = None


Place = Literal["start", "middle", "tail"]


@with_config(ConfigDict(extra="allow"))
class FiringRow(TypedDict):
    """Whether the marker fired in one completion, with its cell.

    Attributes:
        fired: the completion holds the marker, upper and lower case alike.
        fired_tokens: it holds the very tokens that training labelled.
        place_characters: where the first firing begins, by characters; None without one.
        place_tokens: the same by tokens.
        finish: how the completion ended; missing where that is unknown.
    """

    persona: str
    question: str
    sample_index: int
    fired: bool
    fired_tokens: bool
    place_characters: Place | None
    place_tokens: Place | None
    finish: NotRequired[Finish]
