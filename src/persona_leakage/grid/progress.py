"""What a grid shows: the plan before it runs, how far it is, and what came of it."""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from persona_leakage.grid.launch import Outcome
from persona_leakage.grid.points import Point

_LONGEST = 200  # points that are listed one by one


class Durations:
    """What points will take, from what they took: the median of the condition's last whole runs, else of the family's."""

    def __init__(self, points: Sequence[Point]) -> None:
        """Collect the seconds of points that have run."""
        taken: dict[tuple[str, str] | None, list[float]] = defaultdict(list)
        for point in points:
            if point.seconds is not None:
                taken[_kind(point)].append(point.seconds)
                taken[None].append(point.seconds)
        self._medians = {kind: statistics.median(seconds) for kind, seconds in taken.items()}

    def __call__(self, point: Point) -> float | None:
        """Return the seconds that a point will take; None when none of its family has run."""
        return self._medians.get(_kind(point), self._medians.get(None))


def plan_table(points: Sequence[Point], estimate: Durations) -> Table:
    """Show what is done, stale and missing, and what running it will take: a row a point, or a condition when they are many."""
    title = f"{points[0].family}: {len(points)} points"
    if len(points) > _LONGEST:
        table = Table("model", "condition", "done", "stale", "missing", "to run takes", title=title)
        groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
        for point in points:
            groups[_kind(point)].append(point)
        for kind, group in groups.items():
            states = Counter(point.state for point in group)
            table.add_row(
                *map(escape, kind),
                *(str(states[state]) for state in ("done", "stale", "missing")),
                duration(total(group, estimate)),
            )
        return table
    names = list(dict.fromkeys(name for point in points for name in point.address.params))
    table = Table(*names, "state", "action", "takes", title=title)
    for point in points:
        done = point.state == "done"
        seconds = point.seconds if done else estimate(point)
        takes = "" if seconds is None else ("took " if done else "about ") + duration(seconds)
        values = [escape(str(getattr(point.address, name))) for name in names]
        table.add_row(*values, point.state, "skip" if done else "run", takes)
    return table


def _kind(point: Point) -> tuple[str, str]:
    return point.address.series, point.address.condition


def total(points: Sequence[Point], estimate: Durations) -> float | None:
    """Return the seconds that the points that are not done will take one after the other; None when nothing tells."""
    expected = [estimate(point) for point in points if point.state != "done"]
    return None if None in expected else sum(expected)  # type: ignore[arg-type]


def duration(seconds: float | None) -> str:
    """Say a duration; nothing of one that nobody knows."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """A line for every point that ends and, at a terminal, a table of how far the grid is.

    Attributes:
        done: outcomes of the points that ended well.
        failed: of those that did not.
    """

    def __init__(self, console: Console, points: Sequence[Point], estimate: Durations, places: Callable[[], int]) -> None:
        """Begin with points that are to run; `places` tells how many can at once, as things are."""
        self.done: list[Outcome] = []
        self.failed: list[Outcome] = []
        self._console = console
        self._expected = [seconds for point in points if (seconds := estimate(point)) is not None]
        self._points = len(points)
        self._places = places

    def __enter__(self) -> Self:
        """Show the table, at a terminal."""
        self._started = time.monotonic()
        # only now: it asks at once for the table, and so for the places of a launcher that must be ready
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=1, transient=True)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the table away."""
        self._live.stop()

    def tell(self, outcome: Outcome) -> None:
        """Tell of a point that has ended."""
        (self.failed if outcome.failed else self.done).append(outcome)
        end = f"FAILED: {outcome.tail[-1]}" if outcome.failed else "done"
        self._console.print(f"{outcome.point.address}: {end}", markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        done, failed = len(self.done), len(self.failed)
        left = self._points - done - failed
        places = max(1, self._places())
        running = min(left, places)
        taken = [outcome.seconds for outcome in self.done] or self._expected
        time_left = statistics.mean(taken) * -(-left // places) if taken else None
        tokens = sum(outcome.tokens for outcome in self.done)
        speed = f"{tokens / (time.monotonic() - self._started):,.0f}" if tokens else ""
        table = Table("queued", "running", "done", "failed", "tokens/s", "time left")
        table.add_row(*map(str, (left - running, running, done, failed, speed, duration(time_left))))
        return table
