"""One `ask`: what is to be asked and how, and what has come of it."""

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from persona_leakage.domain.questions import Answer, Question
from persona_leakage.engines.claude.budget import Budget
from persona_leakage.engines.claude.progress import Bar
from persona_leakage.engines.journal import Journal

if TYPE_CHECKING:
    import anthropic


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the API is asked.

    Attributes:
        mode: `live` calls, or the batch endpoint at half the price.
        concurrency: live calls in flight.
        deadline_seconds: after this long in one `ask`, what has no answer is given up for this run.
        timeout_seconds: of one call.
        sdk_retries: tries that the SDK adds to each of ours, while there is time for its own waits.
        first_wait_seconds: first pause of our exponential back-off.
        longest_wait_seconds: longest one; a `retry-after` may be longer.
        poll_seconds: between looks at a batch.
        batch_size: largest batch.
    """

    mode: Literal["live", "batch"]
    concurrency: int
    deadline_seconds: float
    timeout_seconds: float
    sdk_retries: int
    first_wait_seconds: float
    longest_wait_seconds: float
    poll_seconds: float
    batch_size: int

    def back_off(self, failures: int) -> float:
        """Tell the seconds to wait after a failure that so many came before."""
        return min(self.longest_wait_seconds, self.first_wait_seconds * 2 ** min(failures, 20))


@dataclass
class Job:
    """Questions on their way to the API; what arrives is stored at once, so that a killed process loses little.

    Attributes:
        api: a connection that tries each call once.
        open: key → question that is neither answered nor given up.
        deadline: on the monotonic clock.
        failures: key → why there is no answer.
    """

    api: "anthropic.Anthropic"
    options: Options
    journal: Journal
    open: dict[str, Question]
    budget: Budget
    bar: Bar
    deadline: float
    failures: dict[str, Answer] = field(default_factory=dict)
    _storing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.monotonic()

    def store(self, key: str, answer: Answer) -> None:
        """Keep an answer; one that only another run asked for is not of this budget."""
        if key in self.open:
            self.budget.settle(self.open[key], answer)
        with self._storing:
            self.journal.append({key: answer.model_dump()})
            self.failures.pop(key, None)
            if self.open.pop(key, None):
                self.bar.done(failed=False)

    def give_up(self, key: str, failure: Answer) -> None:
        """Ask a question no more in this run."""
        self.budget.release(self.open.pop(key))
        self.failures[key] = failure
        self.bar.done(failed=True)
