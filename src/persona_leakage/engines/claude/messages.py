"""What is sent to the API, and what comes back: an answer or a failure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.questions import Answer, Question

if TYPE_CHECKING:
    import anthropic


def request(question: Question) -> Any:
    """Put a question as the SDK's signature has it."""
    turns = [{"role": "user", "content": question.prompt}]
    fields: dict[str, Any] = {"model": question.model, "messages": turns, "max_tokens": question.max_tokens}
    if question.json_schema is not None:
        fields["output_config"] = {"format": {"type": "json_schema", "schema": question.json_schema}}
    return fields


def sampling(question: Question) -> dict[str, Any]:
    """Give what that signature does not have and our version of the API takes."""
    return {} if question.temperature is None else {"temperature": question.temperature}


def read_answer(message: "anthropic.types.Message") -> Answer:
    """Read an answer, which may be the model's refusal.

    Raises:
        ValueError: it is no message.
    """
    if isinstance(message, str):  # what the SDK makes of a page that some proxy sends with status 200
        raise ValueError("no message")
    text = "".join(block.text for block in message.content if block.type == "text")
    usage = {"input_tokens": message.usage.input_tokens, "output_tokens": message.usage.output_tokens}
    if message.stop_reason == "refusal":
        return Answer(outcome="refused", cause="refused by the model", **usage)
    whole = message.stop_reason in ("end_turn", "stop_sequence")  # all others, known or to come, break an answer off
    return Answer(outcome="answered", text=text, truncated=not whole, **usage)


class Failure(Exception):  # noqa: N818
    """A call without an answer; its text says why in a few words.

    Attributes:
        status: of the API's reply, if there was one that could be read.
        retry_after: seconds that the API asks everybody to wait, if it does.
    """

    status: int | None = None
    retry_after: float | None = None

    def __init__(self, error: Exception) -> None:
        """Read an exception of the SDK."""
        import anthropic

        if isinstance(error, anthropic.APIStatusError):
            self.status = error.status_code
            self.retry_after = _seconds(error.response.headers)
            super().__init__(f"API error {error.status_code} {error.type or ''}".strip())
        elif isinstance(error, anthropic.APITimeoutError):
            super().__init__("API timeout")
        elif isinstance(error, anthropic.APIConnectionError):
            super().__init__("API connection lost")
        else:
            super().__init__(f"API answer unreadable ({type(error).__name__})")

    @property
    def passes(self) -> bool:
        """Whether trying again may help: limits, overload, server errors, timeouts, broken connections and bodies."""
        return self.status is None or self.status in (408, 409, 429) or self.status >= 500


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Tell how long a reply asks to wait: a number of seconds, or a date; None if it asks for nothing that can be read."""
    given = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(given))
    with suppress(ValueError):
        until = parsedate_to_datetime(given)
        sent = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)  # its clock, not ours
        return max(0.0, (_utc(until) - _utc(sent)).total_seconds() + 1)  # a date is cut to its second, and means up to its end
    return None


def _utc(moment: datetime) -> datetime:
    """A date that ends in -0000 is one without a time zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def plain_failures() -> Iterator[None]:
    """Turn the SDK's exceptions into ours, which do not show the key.

    Raises:
        UserError: the key is refused.
        Failure: the call failed otherwise.
    """
    import anthropic
    import httpx2

    try:
        yield
    except (anthropic.AuthenticationError, anthropic.PermissionDeniedError) as error:
        raise UserError(f"the API refuses the key ({error.status_code}); set ANTHROPIC_API_KEY to a valid one") from None
    except (anthropic.APIError, httpx2.TransportError, ValueError) as error:  # the last two of a stream or body that was cut
        raise Failure(error) from None
