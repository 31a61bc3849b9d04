"""What a grid shows."""

import io

from rich.console import Console

from persona_leakage.domain.points import Address
from persona_leakage.grid.launch import Outcome
from persona_leakage.grid.points import Point, State
from persona_leakage.grid.progress import Durations, Progress, duration, plan_table, total


def point(condition: str, seed: int, state: State = "missing", seconds: float | None = None, model: str = "m") -> Point:
    address = Address(model=model, condition=condition, seed=seed)
    return Point("family", address, None, None, str(address), state, seconds, None)


def shown(points: list[Point]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(plan_table(points, Durations(points)))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]


def test_expected_times_are_the_conditions_own_else_the_familys() -> None:
    points = [point("a", 1, "done", 60), point("a", 2, "done", 100), point("b", 1, "stale", 600), point("c", 1), point("a", 3)]
    assert shown(points) == [
        ["m", "a", "1", "done", "skip", "took 1 min 00 s"],
        ["m", "a", "2", "done", "skip", "took 1 min 40 s"],
        ["m", "b", "1", "stale", "run", "about 10 min 00 s"],
        ["m", "c", "1", "missing", "run", "about 1 min 40 s"],
        ["m", "a", "3", "missing", "run", "about 1 min 20 s"],
    ]
    assert total(points, Durations(points)) == 600 + 100 + 80


def test_names_in_brackets_are_no_markup() -> None:
    names = ["[bold]", "[/]", "a [red]b"]
    assert [row[1] for row in shown([point(name, 1) for name in names])] == names
    assert [row[1] for row in shown([point(name, seed) for name in names for seed in range(80)])] == names


def test_without_a_finished_point_no_time_is_told() -> None:
    points = [point("a", 1), point("a", 2)]
    assert [row[-1] for row in shown(points)] == ["", ""]
    assert total(points, Durations(points)) is None


def test_many_points_are_counted_by_model_and_condition() -> None:
    points = [point("a", seed, "done", 10) for seed in range(150)] + [point("b", seed) for seed in range(100)]
    points += [point("a", 1, model="n")]
    assert shown(points) == [
        ["m", "a", "150", "0", "0", "0 s"],
        ["m", "b", "0", "0", "100", "16 min 40 s"],
        ["n", "a", "0", "0", "1", "10 s"],
    ]


def test_another_models_time_tells_nothing_of_a_condition_that_ran_on_ones_own() -> None:
    points = [point("a", 1, "done", 60), point("a", 1, "done", 600, model="n"), point("a", 2), point("a", 2, model="n")]
    assert [row[-1] for row in shown(points)[2:]] == ["about 1 min 00 s", "about 10 min 00 s"]


def test_durations_are_said_in_hours_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (None, 0, 59.6, 3599, 7261)] == [
        "",
        "0 s",
        "1 min 00 s",
        "59 min 59 s",
        "2 h 01 min",
    ]


def test_at_a_terminal_a_table_tells_how_far_the_grid_is() -> None:
    points = [point("a", seed) for seed in range(10)]
    console = Console(file=io.StringIO(), width=120, color_system=None)
    with Progress(console, points, Durations(points), lambda: 3) as progress:
        progress.tell(Outcome(points[0], seconds=30.0, tokens=500))
        progress.tell(Outcome(points[1], ("said", "Error: no"), seconds=3.0))
        table = progress._table()
    row = [next(column.cells) for column in table.columns]
    assert row[:4] == ["5", "3", "1", "1"]
    assert row[4] != ""
    assert row[5] == "1 min 30 s"  # 8 points, 3 at a time, 30 s each
    assert console.file.getvalue() == "a seed 0 (m): done\na seed 1 (m): FAILED: Error: no\n"  # type: ignore[attr-defined]


def test_a_launcher_is_asked_for_its_places_only_when_it_is_ready() -> None:
    def places() -> int:
        assert ready
        return 1

    points, ready = [point("a", 1)], False
    progress = Progress(Console(file=io.StringIO()), points, Durations(points), places)
    ready = True
    with progress:
        assert next(column.cells for column in progress._table().columns)
