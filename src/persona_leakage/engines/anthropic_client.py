"""Ask Claude many questions, pay for none twice, and never take an API failure for an answer."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import SecretStr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.questions import Answer, Question
from persona_leakage.engines.journal import Journal

if TYPE_CHECKING:
    import anthropic

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# The protocol's temperatures need this version of the API: the next one (2026-10-21) refuses any, as the SDK's signature does.
_API_VERSION = "2023-06-01"
_BYTES_PER_TOKEN = 2.5  # few, as the ceiling rests on it; the bill counts the API's own tokens
_LONGEST_SDK_WAIT = 60.0  # the SDK obeys a retry-after up to this long, without looking at our deadline


class Price(Frozen):
    """US dollars a million tokens, for single calls; a batch costs half."""

    input: float
    output: float


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
        mode: Literal["live", "batch"],
        concurrency: int,
        deadline_seconds: float,
        timeout_seconds: float,
        sdk_retries: int,
        first_wait_seconds: float,
        longest_wait_seconds: float,
        poll_seconds: float,
        batch_size: int,
        spend_ceiling: float,
        prices: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Configure the client; nothing is sent before `ask`.

        Args:
            cache: folder of the stored answers.
            api_key: of the API; None asks nothing and leaves everything unscored.
            base_url: another endpoint than Anthropic's own.
            mode: `live` calls, or the batch endpoint at half the price.
            concurrency: live calls in flight.
            deadline_seconds: after this long in one `ask`, what has no answer is given up for this run.
            timeout_seconds: of one call.
            sdk_retries: tries that the SDK adds to each of ours, while there is time for its own waits.
            first_wait_seconds: first pause of our exponential back-off.
            longest_wait_seconds: longest one; a `retry-after` may be longer.
            poll_seconds: between looks at a batch.
            batch_size: largest batch.
            spend_ceiling: US dollars that one `ask` may spend.
            prices: model → `Price`.
        """
        self._folder = cache / "api"
        self._key = None if api_key is None else SecretStr(api_key.strip())  # a newline at its end would be an illegal header
        self._base_url = base_url
        self._mode = mode
        self._concurrency = concurrency
        self._deadline_seconds = deadline_seconds
        self._timeout = timeout_seconds
        self._sdk_retries = sdk_retries
        self._first_wait = first_wait_seconds
        self._longest_wait = longest_wait_seconds
        self._poll = poll_seconds
        self._batch_size = batch_size
        self.discount = 0.5 if mode == "batch" else 1.0
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
            return _describe(error)
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
        with Journal(self._folder / f"{purpose}.jsonl") as journal:
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
        budget = _Budget(self.spend_ceiling, self.prices, self.discount)
        most = sum(budget.most(question) for question in todo.values())
        logger.info(
            "%s: %d questions, %d answered before; asking %d %s, about %s tokens in, at most %s out, at most $%.2f",
            purpose,
            asked,
            asked - len(todo),
            len(todo),
            "in batches" if self._mode == "batch" else "live",
            f"{sum(guess_tokens(question) for question in todo.values()):,}",
            f"{sum(question.max_tokens for question in todo.values()):,}",
            most,
        )
        client = self._connection(self._timeout)
        bar = _Bar(purpose, len(todo))
        with client, bar.progress:
            send = self._send_batches if self._mode == "batch" else self._send_live
            failures = send(client, journal, todo, budget, bar, time.monotonic() + self._deadline_seconds)
        logger.info("%s: %d answers for $%.4f", purpose, len(todo) - len(failures), budget.spent)
        if failures:
            causes = Counter(answer.cause for answer in failures.values())
            said = "; ".join(f"{number} x {cause}" for cause, number in causes.most_common(5))
            logger.warning(
                "%s: %d of %d questions have no answer (%s); start the same command again to ask only these",
                purpose,
                len(failures),
                asked,
                said,
            )
        return failures

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

    def _send_live(
        self,
        client: "anthropic.Anthropic",
        journal: Journal,
        todo: dict[str, Question],
        budget: "_Budget",
        bar: "_Bar",
        deadline: float,
    ) -> dict[str, Answer]:
        pause, storing = _Pause(), threading.Lock()
        failures: dict[str, Answer] = {}

        def ask_and_store(key: str, question: Question) -> None:
            answer = self._ask_one(client, question, budget, bar, pause, deadline)
            answered = answer.outcome in ("answered", "refused")
            with storing:  # at once: a killed process loses no more than the answers that are just arriving
                if answered:
                    journal.append({key: answer.model_dump()})
                else:
                    failures[key] = answer
            bar.done(failed=not answered)

        pool = ThreadPoolExecutor(self._concurrency)
        try:  # an interrupt, or a refused key, must not wait for threads that wait for an outage to end
            for future in as_completed([pool.submit(ask_and_store, *item) for item in todo.items()]):
                future.result()
        finally:
            pause.stopped.set()
            pool.shutdown(cancel_futures=True)
        return failures

    def _ask_one(
        self,
        client: "anthropic.Anthropic",
        question: Question,
        budget: "_Budget",
        bar: "_Bar",
        pause: "_Pause",
        deadline: float,
    ) -> Answer:
        import anthropic

        if not budget.reserve(question):
            return Answer(outcome="unscored", cause="spend ceiling reached")
        attempts, cause = 0, ""
        patient = client.with_options(max_retries=self._sdk_retries)
        sdk_seconds = self._sdk_retries * (_LONGEST_SDK_WAIT + self._timeout)
        try:
            while True:
                while (wait := pause.remaining()) and time.monotonic() + wait < deadline and not pause.stopped.wait(wait):
                    pass  # another thread may have been told to wait longer
                if pause.stopped.is_set() or time.monotonic() + wait >= deadline:
                    tries = f" after {attempts} attempts" if attempts else ", none attempted"
                    return Answer(outcome="api_error", cause=(cause or "deadline") + tries)
                attempts += 1
                try:
                    with bar.in_flight():
                        caller = patient if time.monotonic() + sdk_seconds < deadline else client
                        message = caller.messages.create(**_request(question), extra_body=_sampling(question))
                    answer = _answer(message)
                    budget.settle(question, answer)
                    return answer
                except (anthropic.AuthenticationError, anthropic.PermissionDeniedError) as error:
                    raise _key_refused(error) from None
                except (anthropic.APIError, ValueError) as error:  # a body that was cut is a ValueError
                    cause = _describe(error)
                    if not _transient(error):
                        return Answer(outcome="api_error", cause=cause)
                    bar.retried()
                    own = min(self._longest_wait, self._first_wait * 2 ** min(attempts - 1, 20)) * random.uniform(0.5, 1)
                    asked = _retry_after(error)
                    if asked is not None:
                        pause.extend(asked)  # the limit is on the key: every thread waits
                    pause.stopped.wait(max(0, min(own, deadline - time.monotonic())))
        finally:
            budget.release(question)

    def _send_batches(
        self,
        client: "anthropic.Anthropic",
        journal: Journal,
        todo: dict[str, Question],
        budget: "_Budget",
        bar: "_Bar",
        deadline: float,
    ) -> dict[str, Answer]:
        """Submit batches and collect them; a batch that was submitted before a crash is collected, not sent again."""
        failures: dict[str, Answer] = {}
        open_keys = dict(todo)
        with Journal(self._folder / "batches.jsonl") as submitted:
            rounds_without_answer, cause = 0, "deadline reached"
            try:
                while open_keys and rounds_without_answer < 3 and time.monotonic() < deadline:
                    pending = self._pending(submitted, open_keys)
                    if not pending:
                        pending = self._submit(client, submitted, open_keys, failures, budget, deadline)
                    before = len(open_keys)
                    for batch in pending:
                        self._collect(client, journal, submitted, batch, open_keys, failures, budget, bar, deadline)
                    rounds_without_answer = 0 if len(open_keys) < before else rounds_without_answer + 1
            except _Outage as outage:
                cause = str(outage)
        for key in open_keys:
            failures.setdefault(key, Answer(outcome="api_error", cause=cause))
            bar.done(failed=True)
        return {key: failure for key, failure in failures.items() if key not in journal.entries}

    def _pending(self, submitted: Journal, open_keys: Mapping[str, Question]) -> list[str]:
        """Name the batches that were submitted, not collected, and hold something that is wanted."""
        return [
            name
            for name, keys in submitted.entries.items()
            if not name.startswith("collected:") and f"collected:{name}" not in submitted.entries and set(keys) & set(open_keys)
        ]

    def _submit(
        self,
        client: "anthropic.Anthropic",
        submitted: Journal,
        open_keys: dict[str, Question],
        failures: dict[str, Answer],
        budget: "_Budget",
        deadline: float,
    ) -> list[str]:
        affordable = []
        for key, question in list(open_keys.items()):
            if budget.reserve(question):
                affordable.append(key)
            else:
                failures[key] = Answer(outcome="unscored", cause="spend ceiling reached")
                del open_keys[key]
        names = []
        for start in range(0, len(affordable), self._batch_size):
            keys = affordable[start : start + self._batch_size]
            requests: Any = [{"custom_id": key, "params": _request(open_keys[key]) | _sampling(open_keys[key])} for key in keys]
            batch = self._patiently(partial(client.messages.batches.create, requests=requests), deadline)
            submitted.append({batch.id: keys})
            names.append(batch.id)
        return names

    def _collect(
        self,
        client: "anthropic.Anthropic",
        journal: Journal,
        submitted: Journal,
        name: str,
        open_keys: dict[str, Question],
        failures: dict[str, Answer],
        budget: "_Budget",
        bar: "_Bar",
        deadline: float,
    ) -> None:
        import anthropic

        while True:
            try:
                batch = self._patiently(lambda: client.messages.batches.retrieve(name), deadline)
            except _Gone:
                logger.warning("the API knows batch %s no more; its questions are sent again", name)
                submitted.append({f"collected:{name}": True})
                return
            if batch.processing_status == "ended":
                break
            if time.monotonic() + self._poll >= deadline:
                logger.warning("batch %s is still being processed; start the same command later to collect it", name)
                return
            time.sleep(self._poll)
        results = self._patiently(lambda: list(client.messages.batches.results(name)), deadline)
        for result in results:
            key = result.custom_id
            if key not in open_keys:  # a duplicate, or wanted by another run: it is paid for
                if key not in journal.entries and result.result.type == "succeeded":
                    journal.append({key: _answer(result.result.message).model_dump()})
                continue
            if result.result.type == "succeeded":
                answer = _answer(result.result.message)
                journal.append({key: answer.model_dump()})
                budget.settle(open_keys[key], answer)
                failures.pop(key, None)
                del open_keys[key]
                bar.done(failed=False)
            elif isinstance(result.result, anthropic.types.messages.MessageBatchErroredResult):
                failures[key] = Answer(outcome="api_error", cause=f"batch: {result.result.error.error.type}")
            else:
                failures[key] = Answer(outcome="api_error", cause=f"batch: {result.result.type}")
        for key in submitted.entries[name]:
            if key in open_keys:
                failures.setdefault(key, Answer(outcome="api_error", cause="batch: missing from the results"))
                budget.release(open_keys[key])
        submitted.append({f"collected:{name}": True})

    def _patiently(self, call: Callable[[], _T], deadline: float) -> _T:
        """Repeat a call through transient failures.

        Raises:
            _Outage: the deadline passes first.
            _Gone: the API does not know what is asked for.
            UserError: the API refuses the key or the request.
        """
        import anthropic
        import httpx2

        attempt = 0
        while True:
            try:
                return call()
            except (anthropic.AuthenticationError, anthropic.PermissionDeniedError) as error:
                raise _key_refused(error) from None
            except anthropic.NotFoundError as error:
                raise _Gone(_describe(error)) from None
            except (anthropic.APIError, httpx2.TransportError, ValueError) as error:  # a stream raises httpx2's own
                if not _transient(error):
                    raise UserError(f"the API refuses the batch: {_describe(error)}") from None
                asked = _retry_after(error)
                wait = min(self._longest_wait, self._first_wait * 2 ** min(attempt, 20)) if asked is None else asked
                attempt += 1
                if time.monotonic() + wait >= deadline:
                    raise _Outage(_describe(error)) from None
                time.sleep(wait)


class _Outage(Exception):  # noqa: N818
    """The deadline came before the API answered."""


class _Gone(Exception):  # noqa: N818
    """The API does not know a batch."""


class _Budget:
    """Money spent and promised; a question is asked only when its dearest answer still fits under the ceiling."""

    def __init__(self, ceiling: float, prices: Mapping[str, Price], discount: float) -> None:
        self._ceiling = ceiling
        self._prices = prices
        self._discount = discount
        self._promised = 0.0
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self.spent = 0.0

    def most(self, question: Question) -> float:
        return self._cost(question, guess_tokens(question), question.max_tokens)

    def reserve(self, question: Question) -> bool:
        with self._lock:
            if self.spent + self._promised + self.most(question) > self._ceiling:
                return False
            self._promised += self.most(question)
            self._open.add(question.fingerprint)
            return True

    def settle(self, question: Question, answer: Answer) -> None:
        with self._lock:
            self.spent += self._cost(question, answer.input_tokens, answer.output_tokens)
        self.release(question)

    def release(self, question: Question) -> None:
        with self._lock:
            if question.fingerprint in self._open:
                self._open.remove(question.fingerprint)
                self._promised -= self.most(question)

    def _cost(self, question: Question, input_tokens: float, output_tokens: float) -> float:
        price = self._prices[question.model]
        return self._discount * (input_tokens * price.input + output_tokens * price.output) / 1e6


class _Pause:
    """Until when nobody may call."""

    def __init__(self) -> None:
        self._until = 0.0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def extend(self, seconds: float) -> None:
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def remaining(self) -> float:
        with self._lock:
            return max(0.0, self._until - time.monotonic())


class _Bar:
    """Progress: done, in flight, retried, failed."""

    def __init__(self, purpose: str, total: int) -> None:
        self.progress = Progress(
            TextColumn(purpose),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[flying]} in flight, {task.fields[retries]} retried, {task.fields[failures]} failed"),
        )
        self._task = self.progress.add_task("", total=total, flying=0, retries=0, failures=0)
        self._counts: dict[str, Any] = {"flying": 0, "retries": 0, "failures": 0}
        self._lock = threading.Lock()

    def in_flight(self) -> "_Flight":
        return _Flight(self)

    def retried(self) -> None:
        self.count("retries", 1)

    def done(self, *, failed: bool) -> None:
        if failed:
            self.count("failures", 1)
        self.progress.advance(self._task)

    def count(self, name: str, by: int) -> None:
        with self._lock:
            self._counts[name] += by
            self.progress.update(self._task, **self._counts)


class _Flight:
    def __init__(self, bar: _Bar) -> None:
        self._bar = bar

    def __enter__(self) -> None:
        self._bar.count("flying", 1)

    def __exit__(self, *_: object) -> None:
        self._bar.count("flying", -1)


def _request(question: Question) -> Any:
    request: dict[str, Any] = {
        "model": question.model,
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": question.max_tokens,
    }
    if question.json_schema is not None:
        request["output_config"] = {"format": {"type": "json_schema", "schema": question.json_schema}}
    return request


def _sampling(question: Question) -> dict[str, Any]:
    return {} if question.temperature is None else {"temperature": question.temperature}


def _answer(message: "anthropic.types.Message") -> Answer:
    if isinstance(message, str):  # what the SDK makes of a page that some proxy sends with status 200
        raise ValueError("no message")
    text = "".join(block.text for block in message.content if block.type == "text")
    usage = {"input_tokens": message.usage.input_tokens, "output_tokens": message.usage.output_tokens}
    if message.stop_reason == "refusal":
        return Answer(outcome="refused", cause="refused by the model", **usage)
    return Answer(outcome="answered", text=text, truncated=message.stop_reason == "max_tokens", **usage)


def guess_tokens(question: Question) -> int:
    """Reckon a question's tokens, rather too many than too few."""
    return round(len(question.prompt.encode()) / _BYTES_PER_TOKEN) + 10


def _transient(error: Exception) -> bool:
    """Tell whether trying again may help: limits, overload, server errors, timeouts, broken connections and bodies."""
    import anthropic

    if isinstance(error, anthropic.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return not isinstance(error, anthropic.AnthropicError) or isinstance(error, anthropic.APIError)


def _retry_after(error: Exception) -> float | None:
    import anthropic

    if not isinstance(error, anthropic.APIStatusError):
        return None
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _key_refused(error: "anthropic.APIStatusError") -> UserError:
    return UserError(f"the API refuses the key ({error.status_code}); set ANTHROPIC_API_KEY to a valid one")


def _describe(error: Exception) -> str:
    import anthropic

    if isinstance(error, anthropic.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        detail = body.get("error", {}) if isinstance(body.get("error"), dict) else {}
        return f"API error {error.status_code} {detail.get('type', '')}".strip()
    if isinstance(error, anthropic.APITimeoutError):
        return "API timeout"
    if isinstance(error, anthropic.APIConnectionError):
        return "API connection lost"
    return f"API answer unreadable ({type(error).__name__})"
