"""Message batches, at half the price."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.questions import Answer
from persona_leakage.engines.claude.job import Job
from persona_leakage.engines.claude.messages import Failure, plain_failures, read_answer, request, sampling
from persona_leakage.engines.journal import Journal, open_journal

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# errors of an item that another batch may not meet; any other is one of the question itself
_PASSES = ("api_error", "overloaded_error", "rate_limit_error", "timeout_error")


def send_batches(job: Job) -> None:
    """Submit batches and collect them; a batch that was submitted before a crash is collected, not sent again.

    Raises:
        UserError: the key or a batch is refused.
    """
    rounds_without_answer, cause = 0, "deadline reached"
    with open_journal(job.journal.path.with_name("batches.jsonl")) as submitted:
        try:
            while job.open and rounds_without_answer < 3 and job.seconds_left > 0:
                pending = _pending(job, submitted) or _submit(job, submitted)
                before = len(job.open)
                for name in pending:
                    _collect(job, submitted, name)
                rounds_without_answer = 0 if len(job.open) < before else rounds_without_answer + 1
        except Failure as outage:
            cause = str(outage)
    for key in list(job.open):
        job.give_up(key, job.failures.get(key) or Answer(outcome="api_error", cause=cause))


def _pending(job: Job, submitted: Journal) -> list[str]:
    """Name the batches that were submitted, not collected, and hold something that is wanted."""
    entries = submitted.entries
    left = [name for name in entries if not name.startswith("collected:") and f"collected:{name}" not in entries]
    return [name for name in left if job.open.keys() & entries[name]]


def _submit(job: Job, submitted: Journal) -> list[str]:
    for key, question in list(job.open.items()):
        if not job.budget.reserve(question):
            job.give_up(key, Answer(outcome="unscored", cause="spend ceiling reached"))
    names, affordable = [], list(job.open)
    for start in range(0, len(affordable), job.options.batch_size):
        keys = affordable[start : start + job.options.batch_size]
        requests: Any = [{"custom_id": key, "params": request(job.open[key]) | sampling(job.open[key])} for key in keys]
        batch = _patiently(job, partial(job.api.messages.batches.create, requests=requests))
        submitted.append({batch.id: keys})
        names.append(batch.id)
    return names


def _collect(job: Job, submitted: Journal, name: str) -> None:
    batches = job.api.messages.batches
    try:
        while _patiently(job, partial(batches.retrieve, name)).processing_status != "ended":
            if job.options.poll_seconds >= job.seconds_left:
                logger.warning("batch %s is still being processed; start the same command later to collect it", name)
                return
            time.sleep(job.options.poll_seconds)
        results = _patiently(job, lambda: list(batches.results(name)))
    except Failure as failure:
        if failure.status != 404:
            raise
        logger.warning("the API knows batch %s no more; its questions are sent again", name)
        submitted.append({f"collected:{name}": True})
        return
    for key, result in ((one.custom_id, one.result) for one in results):
        if result.type == "succeeded":
            if key not in job.journal.entries:  # a duplicate is; what only another run wants is not, and is paid for
                job.store(key, read_answer(result.message))
        elif key in job.open:
            cause = result.error.error.type if result.type == "errored" else result.type
            unanswered = Answer(outcome="api_error", cause=f"batch: {cause}")
            if result.type == "errored" and cause not in _PASSES:
                job.give_up(key, unanswered)
            else:
                job.failures[key] = unanswered
    for key in submitted.entries[name]:
        if key in job.open:
            job.failures.setdefault(key, Answer(outcome="api_error", cause="batch: missing from the results"))
            job.budget.release(job.open[key])
    submitted.append({f"collected:{name}": True})


def _patiently(job: Job, call: Callable[[], _T]) -> _T:
    """Repeat a call through failures that pass.

    Raises:
        Failure: the deadline comes first, or the API does not know what is asked for (404).
        UserError: the API refuses the key or the request.
    """
    attempt = 0
    while True:
        try:
            with plain_failures():
                return call()
        except Failure as failure:
            if not failure.passes and failure.status != 404:
                raise UserError(f"the API refuses the batch: {failure}") from None
            wait = job.options.back_off(attempt) if failure.retry_after is None else failure.retry_after
            if failure.status == 404 or wait >= job.seconds_left:
                raise
            time.sleep(wait)
            attempt += 1
