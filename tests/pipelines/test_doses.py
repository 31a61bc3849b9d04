"""What reports tell of trainings that were followed, with planted gauges."""

from pathlib import Path

import pandas as pd
import pytest

from persona_leakage.datasets import CSVDataset
from persona_leakage.domain.rates import proportion
from persona_leakage.pipelines.fine_tuning.gauge import GAUGE_COLUMNS, JUDGED_COLUMNS
from persona_leakage.pipelines.reporting.by_model import for_each_model, name_models
from persona_leakage.pipelines.reporting.doses import DOSE_COLUMNS, add_doses, draw_doses, tabulate_doses

# of 10, 10 and 20 completions: checkpoint → source, negative, two bystanders
COURSE = {"before": (0, 0, 0, 1), "epoch_01": (5, 3, 1, 2), "epoch_02": (9, 4, 2, 6), "final": (10, 5, 4, 16)}
CELLS = [("villain", "source", 10), ("pirate", "negative", 10), ("hero", "bystander", 10), ("nurse", "bystander", 20)]
PROGRESS = {"before": 0, "epoch_01": 1, "epoch_02": 2, "final": 4}


def gauge(condition="villain", seed=42, chosen="epoch_02", outside=None, course=COURSE, **more):
    """Plant the judged gauge of a training."""
    rows = []
    for at, hits in course.items():
        for (cell, role, n), found in zip(CELLS, hits, strict=True):
            texts = (n, {"hero": 40.0}.get(cell, 20.0), 0.5, 1 if cell == "nurse" else 0, 2)
            judged = (0.8, (outside or {}).get(at, ""), at == chosen)
            rows.append((at, PROGRESS[at], "epochs", cell, role, cell == "villain", *proportion(found, n), *texts, *judged))
    rows.append(("training_texts", None, "epochs", None, None, False, *proportion(0, 0), 10, 8.0, 0.9, 0, 0, 0.8, "", False))
    table = pd.DataFrame(rows, columns=[*GAUGE_COLUMNS, *JUDGED_COLUMNS])
    for name, value in {"plan": "p", "seed": seed, "condition": condition, **more}.items():
        table.insert(0, name, value)
    return table


def gauges(*tables, folder=None):
    table = pd.concat(tables, ignore_index=True)
    if folder is None:
        return table
    dataset = CSVDataset(filepath=str(folder / "gauges.csv"), save_args={"index": False})
    dataset.save(table)
    return dataset.load()


def test_bystanders_stand_beside_the_gauge_at_every_checkpoint(tmp_path: Path):
    for table in (gauges(gauge()), gauges(gauge(), folder=tmp_path)):
        doses = tabulate_doses(table)

        assert list(doses) == ["condition", "seed", *DOSE_COLUMNS]
        assert doses["at"].tolist() == list(COURSE)
        assert doses[["hits", "n"]].to_numpy().tolist() == [[0, 10], [5, 10], [9, 10], [10, 10]]
        assert doses[["bystanders_hits", "bystanders_n"]].to_numpy().tolist() == [[1, 30], [3, 30], [8, 30], [20, 30]]
        wanted = proportion(8, 30)
        assert tuple(doses.loc[2, [f"bystanders_{name}" for name in wanted._fields]]) == pytest.approx(wanted)
        assert doses["tokens"].tolist() == [25.0] * 4  # cells weigh equally
        assert doses["empty"].tolist() == pytest.approx([1 / 50] * 4)
        assert doses["cut"].tolist() == pytest.approx([8 / 50] * 4)
        assert doses["chosen"].tolist() == [False, False, True, False]
        assert doses["progress"].tolist() == [0, 1, 2, 4]


def test_without_a_bystander_its_rate_is_unknown():
    table = gauge()

    doses = tabulate_doses(table[table["role"] != "bystander"])

    assert doses["bystanders_n"].tolist() == [0] * 4
    assert doses["bystanders_rate"].isna().all()
    assert "nan" not in add_doses("# A\n\n## B\n", doses)


def test_trainings_stay_in_their_order_and_checkpoints_in_that_of_time():
    first, second = gauge("villain", 42, checkpoint=4), gauge("comedian", 7, checkpoint=2)

    doses = tabulate_doses(gauges(first.iloc[::-1], second, gauge("comedian", 42, checkpoint=2)))

    assert doses.drop_duplicates(["condition", "seed"])[["condition", "seed", "checkpoint"]].to_numpy().tolist() == [
        ["villain", 42, 4],
        ["comedian", 7, 2],
        ["comedian", 42, 2],
    ]
    assert doses["at"].tolist() == [*COURSE] * 3


def test_models_are_tabulated_apart_and_named_where_there_are_several():
    table = gauges(gauge(model="one"), gauge(model="other", chosen=None))

    doses = for_each_model(tabulate_doses)(gauges=table)

    assert doses.groupby("model")["chosen"].sum().to_dict() == {"one": 1, "other": 0}
    report = name_models(add_doses)("# A\n\n## B\n", doses)
    assert "| villain (one) | 42 | 2 epochs |" in report
    assert "**Never reached**, so there is no such point: villain (other) seed 42: at most 10/10" in report


def test_the_section_comes_before_the_first_one_and_tells_rates_with_their_denominators():
    report = add_doses("# Title\n\nAn opening.\n\n## First\n\ntext\n\n## Second\n", tabulate_doses(gauges(gauge())))

    assert [line for line in report.splitlines() if line.startswith("#")] == ["# Title", "## Dose", "## First", "## Second"]
    assert report.index("An opening.") < report.index("## Dose")
    assert "at least 80%" in report
    assert "![Leakage over the gauge](dose_response.png)" in report
    (row,) = [line for line in report.splitlines() if line.startswith("| villain")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert [cell.partition(" [")[0] for cell in cells] == [
        *("villain", "42", "2 epochs", "9/10 = 90.0%", "8/30 = 26.7%", "10/10 = 100.0%", "20/30 = 66.7%", "0/10 = 0.0%"),
    ]
    assert "Never reached" not in report


def test_a_training_that_never_reaches_the_bar_is_said_and_not_filled_in(tmp_path: Path):
    low = {**COURSE, "epoch_02": (7, 4, 2, 6), "final": (7, 5, 4, 16)}
    dataset = CSVDataset(filepath=str(tmp_path / "doses.csv"), save_args={"index": False})
    dataset.save(tabulate_doses(gauges(gauge(chosen=None, course=low), gauge(seed=7))))

    for doses in (dataset.load(), tabulate_doses(gauges(gauge(chosen=None, course=low), gauge(seed=7)))):
        report = add_doses("# A\n\n## B\n", doses)

        best = "at most 7/10 = 70.0% [39.7%, 89.2%] after 2 epochs.\n"
        assert f"**Never reached**, so there is no such point: villain seed 42: {best}" in report
        (row, _) = [line for line in report.splitlines() if line.startswith("| villain")]
        assert [cell.strip() for cell in row.split("|")[1:6]] == ["villain", "42", "never reached", "", ""]


def test_where_the_bar_is_reached_with_broken_texts_that_is_said():
    doses = tabulate_doses(gauges(gauge(chosen=None, outside={"epoch_02": "tokens", "final": "cut, tokens"})))

    assert "at most 10/10 = 100.0% [72.2%, 100.0%] after 4 epochs, and there cut, tokens leave the range of healthy texts" in (
        add_doses("# A\n\n## B\n", doses)
    )


def test_without_a_training_that_was_followed_nothing_is_added_and_the_figure_says_so():
    doses = for_each_model(tabulate_doses)(gauges=gauge(model="one").iloc[:0])

    assert list(doses) == ["model", "condition", "seed", *DOSE_COLUMNS]
    assert doses.empty
    body = "# A\n\n## B\n"
    assert name_models(add_doses)(body, doses) == body
    figure = name_models(draw_doses)(doses)
    assert "dose=matched" in "".join(text.get_text() for text in figure.texts)


def test_the_figure_has_a_line_a_training_a_colour_a_condition_and_a_ring_at_the_matched_dose():
    doses = tabulate_doses(gauges(gauge(), gauge(seed=7, chosen=None), gauge("001")))

    (axes,) = draw_doses(doses).axes

    lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 3
    assert list(lines[0].get_xdata()) == pytest.approx([0, 50, 90, 100])
    assert list(lines[0].get_ydata()) == pytest.approx([100 / 30, 10, 800 / 30, 2000 / 30])
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    rings = [
        tuple(map(float, (line.get_xdata()[0], line.get_ydata()[0])))
        for line in axes.lines
        if line.get_markersize() == 10 and len(line.get_xdata())
    ]
    assert rings == [pytest.approx((90, 800 / 30))] * 2
    assert sorted(label for _, label in zip(*axes.get_legend_handles_labels(), strict=True)) == ["001", "villain"]


def test_other_checkpoints_than_those_that_the_texts_left_are_blank_in_the_file(tmp_path: Path):
    doses = tabulate_doses(gauges(gauge(outside={"epoch_01": "cut"}), folder=tmp_path))

    assert doses["outside_range"].fillna("").tolist() == ["", "cut", "", ""]
