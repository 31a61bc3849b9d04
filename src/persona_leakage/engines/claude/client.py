"""Ask Claude many questions, pay for none twice, and never take an API failure for an answer."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.engines.claude.batches import send_batches
from persona_leakage.engines.claude.budget import Budget, Price, guess_tokens
from persona_leakage.engines.claude.job import Job, Options
from persona_leakage.engines.claude.live import send_live
from persona_leakage.engines.claude.messages import Failure
from persona_leakage.engines.claude.progress import Bar
from persona_leakage.engines.journal import Journal, open_journal

if TYPE_CHECKING:
    import anthropic

logger = logging.getLogger(__name__)

# The protocol's temperatures need this version of the API: the next one (2026-10-21) refuses any, as the SDK's signature does.
_API_VERSION = "2023-06-01"


class AnthropicClient:
    """Claude's Messages and Message Batches endpoints behind a store of answers.

    An answer, a model's refusal included, is stored as soon as it arrives, under the hash of model, prompt and parameters.
    Failures are never stored: asking again asks only what has no answer yet. A process that is killed loses the calls in
    flight, at most `concurrency` of them; the API may still bill one whose answer was on its way.
    """

    def __init__(
        self,
        *,
        cache: Path,
        api_key: str | None,
        base_url: str | None = None,
        spend_ceiling: float,
        prices: Mapping[str, Mapping[str, float]],
        **options: Any,
    ) -> None:
        """Configure the client; nothing is sent before `ask`.

        Args:
            cache: folder of the stored answers.
            api_key: of the API; None asks nothing and leaves everything unscored.
            base_url: another endpoint than Anthropic's own.
            spend_ceiling: US dollars that one `ask` may spend.
            prices: model → `Price`.
            **options: those of `Options`.
        """
        self._folder = cache / "api"
        self._key = None if api_key is None else SecretStr(api_key.strip())  # a newline at its end would be an illegal header
        self._base_url = base_url
        self._options = Options(**options)
        self.discount = 0.5 if self._options.mode == "batch" else 1.0
        self.spend_ceiling = spend_ceiling
        self.prices = {model: Price.checked(price, f"prices.{model}") for model, price in prices.items()}

    @property
    def has_key(self) -> bool:
        """Whether there is a key; it says nothing of whether the API takes it."""
        return self._key is not None and bool(self._key.get_secret_value())

    def refusal(self, model: str, timeout_seconds: float) -> str | None:
        """Look a model up, which costs nothing, and say why it would answer nothing; None if it would."""
        import anthropic

        try:
            with self._connection(timeout_seconds) as client:
                client.models.retrieve(model)
        except (anthropic.AnthropicError, ValueError) as error:
            return str(Failure(error))
        return None

    def ask(self, questions: Sequence[Question], purpose: str) -> list[Answer]:
        """Answer every question, from the store where it can.

        Args:
            questions: repeated ones are asked once.
            purpose: names the store and the progress bar, such as `judge`.

        Returns:
            One answer a question, in their order.

        Raises:
            UserError: the key is refused, or a model has no price.
        """
        wanted = {question.fingerprint: question for question in questions}
        with open_journal(self._folder / f"{purpose}.jsonl") as journal:
            todo = {key: question for key, question in wanted.items() if key not in journal.entries}
            failures: dict[str, Answer] = {}
            if todo and self._key is None:
                failures = {key: Answer(outcome="unscored", cause="no API key") for key in todo}
                logger.warning("%s: %d questions are not asked, there is no API key", purpose, len(todo))
            elif todo:
                failures = self._send(journal, todo, len(wanted), purpose)
            return [
                failures[key] if key in failures else Answer.model_validate(journal.entries[key])
                for key in (question.fingerprint for question in questions)
            ]

    def _send(self, journal: Journal, todo: dict[str, Question], asked: int, purpose: str) -> dict[str, Answer]:
        if unpriced := {question.model for question in todo.values()} - set(self.prices):
            raise UserError(f"no price is set for {', '.join(sorted(unpriced))}; add it to the client's prices in the catalog")
        batch, budget = self._options.mode == "batch", Budget(self.spend_ceiling, self.prices, self.discount)
        logger.info(
            f"{purpose}: {asked} questions, {asked - len(todo)} answered before; asking {len(todo)} "
            f"{'in batches' if batch else 'live'}, about {sum(map(guess_tokens, todo.values())):,} tokens in, "
            f"at most {sum(question.max_tokens for question in todo.values()):,} out, "
            f"at most ${sum(map(budget.most, todo.values())):.2f}"
        )
        with self._connection(self._options.timeout_seconds) as api, Bar(purpose, len(todo)) as bar:
            deadline = time.monotonic() + self._options.deadline_seconds
            job = Job(api, self._options, journal, dict(todo), budget, bar, deadline)
            (send_batches if batch else send_live)(job)
        logger.info("%s: %d answers for $%.4f", purpose, len(todo) - len(job.failures), budget.spent)
        if job.failures:
            causes = Counter(answer.cause for answer in job.failures.values())
            said = "; ".join(f"{number} x {cause}" for cause, number in causes.most_common(5))
            remedy = "start the same command again to ask only these"
            logger.warning(f"{purpose}: {len(job.failures)} of {asked} questions have no answer ({said}); {remedy}")
        return job.failures

    def _connection(self, timeout: float) -> "anthropic.Anthropic":
        import anthropic

        assert self._key is not None
        return anthropic.Anthropic(
            api_key=self._key.get_secret_value(),
            base_url=self._base_url,
            timeout=timeout,
            max_retries=0,
            default_headers={"anthropic-version": _API_VERSION},
        )
