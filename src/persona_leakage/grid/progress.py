"""What a grid shows: the plan before it runs, how far it is, and what came of it."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from persona_leakage.grid.launch import Outcome
from persona_leakage.grid.points import Point

_LONGEST = 200  # points that are listed one by one


class Durations:
    """What points will take, from what they took: the median of the condition's last whole runs, else of the family's."""

    def __init__(self, points: Sequence[Point]) -> None:
        """Collect the seconds of points that have run."""
        taken: dict[str | None, list[float]] = {}
        for point in points:
            if point.seconds is not None:
                taken.setdefault(point.condition, []).append(point.seconds)
                taken.setdefault(None, []).append(point.seconds)
        self._medians = {condition: statistics.median(seconds) for condition, seconds in taken.items()}

    def __call__(self, point: Point) -> float | None:
        """Return the seconds that a point will take; None when none of its family has run."""
        return self._medians.get(point.condition, self._medians.get(None))


def plan_table(points: Sequence[Point], estimate: Durations) -> Table:
    """Show what is done, stale and missing, and what running it will take: a row a point, or a condition when they are many."""
    title = f"{points[0].family}: {len(points)} points"
    if len(points) > _LONGEST:
        table = Table("condition", "done", "stale", "missing", "to run takes", title=title)
        groups: dict[str, list[Point]] = {}
        for point in points:
            groups.setdefault(point.condition, []).append(point)
        for condition, group in groups.items():
            states = Counter(point.state for point in group)
            table.add_row(
                condition, *(str(states[state]) for state in ("done", "stale", "missing")), said(total(group, estimate))
            )
        return table
    table = Table(*points[0].params, "state", "action", "takes", title=title)
    for point in points:
        done = point.state == "done"
        seconds = point.seconds if done else estimate(point)
        takes = "" if seconds is None else ("took " if done else "about ") + said(seconds)
        table.add_row(*map(str, point.params.values()), point.state, "skip" if done else "run", takes)
    return table


def total(points: Sequence[Point], estimate: Durations) -> float | None:
    """Return the seconds that the points that are not done will take one after the other; None when nothing tells."""
    expected = [estimate(point) for point in points if point.state != "done"]
    return None if None in expected else sum(expected)  # type: ignore[arg-type]


def said(seconds: float | None) -> str:
    """Say a duration."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """A line for every point that ends and, at a terminal, a table of how far the grid is."""

    def __init__(self, console: Console, points: Sequence[Point], estimate: Durations, places: Callable[[], int]) -> None:
        """Describe the grid.

        Args:
            console: where to show it.
            points: what runs.
            estimate: what each will take.
            places: how many can run at once, as things are.
        """
        self._console = console
        self._expected = [seconds for point in points if (seconds := estimate(point)) is not None]
        self._points = len(points)
        self._places = places
        self._taken: list[float] = []
        self._failed = self._tokens = 0
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=1, transient=True)

    def __enter__(self) -> Self:
        """Show the table, at a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the table away."""
        self._live.stop()

    def ended(self, outcome: Outcome) -> None:
        """Tell of a point that has ended."""
        self._failed += outcome.failed
        self._tokens += outcome.tokens
        if not outcome.failed:
            self._taken.append(outcome.seconds)
        end = f"FAILED: {outcome.tail[-1]}" if outcome.failed else "done"
        self._console.print(f"{outcome.point.name}: {end}", markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        done = len(self._taken)
        left = self._points - done - self._failed
        places = max(1, self._places())
        running = min(left, places)
        taken = self._taken or self._expected
        time_left = statistics.mean(taken) * -(-left // places) if taken else None
        speed = self._tokens / (time.monotonic() - self._started)
        table = Table("queued", "running", "done", "failed", "tokens/s", "time left")
        row = (left - running, running, done, self._failed, f"{speed:,.0f}" if self._tokens else "", said(time_left))
        table.add_row(*map(str, row))
        return table
