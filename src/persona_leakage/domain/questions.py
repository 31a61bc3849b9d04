"""Questions to a language-model API, and everything that can become of one."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from persona_leakage.domain.frozen import Frozen, fingerprint
from persona_leakage.domain.rows import whole

# text in which halves of characters are replaced by U+FFFD
SoundText = Annotated[str, AfterValidator(whole)]

Outcome = Literal["answered", "refused", "api_error", "unscored"]


class Respondent(Frozen):
    """A language model that is asked.

    Attributes:
        model: exact model name.
        temperature: of sampling; None sends none, which newer models insist on.
        max_tokens: limit of an answer.
    """

    model: str
    temperature: float | None = Field(ge=0, le=1)
    max_tokens: PositiveInt


class Question(Frozen):
    """One user turn to a model; its content is its identity.

    Attributes:
        model: exact model name.
        prompt: the user turn; halves of characters are replaced by U+FFFD.
        temperature: of sampling; None sends none, which newer models insist on.
        max_tokens: limit of the answer.
        attempt: tells repeated samples of one question apart.
        json_schema: the answer must be JSON of this schema, if one is given.
    """

    model: str
    prompt: SoundText
    temperature: float | None = Field(default=None, ge=0, le=1)
    max_tokens: PositiveInt
    attempt: NonNegativeInt = 0
    json_schema: dict[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Identify the question by model, prompt and parameters."""
        return fingerprint(self)


class Answer(Frozen):
    """What became of a question.

    Attributes:
        outcome: `answered` (text), `refused` (the model declined), `api_error` (the API failed for good; `cause` has its
            status) or `unscored` (never asked: no key, or the spend ceiling was reached).
        text: the answer; empty unless answered.
        truncated: the model did not end the answer itself: it was cut at `max_tokens`, at the end of its context, or paused.
        cause: why there is no answer, in a few words.
        input_tokens: billed tokens of the question.
        output_tokens: billed tokens of the answer.
    """

    outcome: Outcome
    text: SoundText = ""
    truncated: bool = False
    cause: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
