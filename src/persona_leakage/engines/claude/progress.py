"""How far the calls have come."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class Bar(Progress):
    """Questions that are done, calls in flight and tried again, questions that failed."""

    def __init__(self, purpose: str, total: int) -> None:
        """Count from zero; nothing is shown before the bar is entered."""
        counts = "{task.fields[flying]} in flight, {task.fields[retries]} retried, {task.fields[failures]} failed"
        super().__init__(TextColumn(purpose), BarColumn(), MofNCompleteColumn(), TextColumn(counts))
        self._only = self.add_task("", total=total, flying=0, retries=0, failures=0)

    def count(self, field: str, by: int = 1) -> None:
        """Add to `flying`, `retries` or `failures`."""
        with self._lock:
            self._tasks[self._only].fields[field] += by

    def done(self, *, failed: bool) -> None:
        """Count a question that needs nothing more."""
        self.count("failures", int(failed))
        self.advance(self._only)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a call for as long as the block runs."""
        self.count("flying")
        try:
            yield
        finally:
            self.count("flying", -1)
