"""Single calls, many at a time."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from persona_leakage.domain.questions import Answer, Question
from persona_leakage.engines.claude.job import Job
from persona_leakage.engines.claude.messages import Failure, plain_failures, read_answer, request, sampling

_LONGEST_SDK_WAIT = 60.0  # the SDK obeys a retry-after up to this long, without looking at our deadline


def send_live(job: Job) -> None:
    """Ask every open question until it is answered, or the deadline comes.

    Raises:
        UserError: the key is refused.
    """
    pause = _Pause()
    pool = ThreadPoolExecutor(job.options.concurrency)
    try:  # an interrupt, or a refused key, must not wait for threads that wait for an outage to end
        for future in as_completed([pool.submit(_ask, job, pause, *item) for item in list(job.open.items())]):
            future.result()
    finally:
        pause.stopped.set()
        pool.shutdown(cancel_futures=True)


class _Pause:
    """Until when nobody may call."""

    def __init__(self) -> None:
        self._until = 0.0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def extend(self, seconds: float) -> None:
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait_out(self, job: Job) -> bool:
        """Wait until calls are allowed; False if that is not before the deadline, or never again."""
        while (wait := max(0.0, self._until - time.monotonic())) and wait < job.seconds_left and not self.stopped.wait(wait):
            pass  # another thread may have been told to wait longer
        return wait < job.seconds_left and not self.stopped.is_set()


def _ask(job: Job, pause: _Pause, key: str, question: Question) -> None:
    if job.budget.reserve(question):
        answer = _answer(job, pause, question)
    else:
        answer = Answer(outcome="unscored", cause="spend ceiling reached")
    (job.store if answer.outcome in ("answered", "refused") else job.give_up)(key, answer)


def _answer(job: Job, pause: _Pause, question: Question) -> Answer:
    patient = job.api.with_options(max_retries=job.options.sdk_retries)
    sdk_seconds = job.options.sdk_retries * (_LONGEST_SDK_WAIT + job.options.timeout_seconds)
    attempts, cause = 0, ""
    while pause.wait_out(job):
        caller = patient if sdk_seconds < job.seconds_left else job.api
        try:
            with plain_failures(), job.bar.in_flight():
                return read_answer(caller.messages.create(**request(question), extra_body=sampling(question)))
        except Failure as failure:
            cause = str(failure)
            if not failure.passes:
                return Answer(outcome="api_error", cause=cause)
            job.bar.count("retries")
            if failure.retry_after is not None:
                pause.extend(failure.retry_after)  # the limit is on the key: every thread waits
            pause.stopped.wait(max(0, min(job.options.back_off(attempts) * random.uniform(0.5, 1), job.seconds_left)))
            attempts += 1
    tries = f" after {attempts} attempts" if attempts else ", none attempted"
    return Answer(outcome="api_error", cause=(cause or "deadline") + tries)
