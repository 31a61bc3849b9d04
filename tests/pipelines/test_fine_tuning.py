"""What the stages of a point say of their training."""

from persona_leakage.pipelines.fine_tuning.nodes import describe_training
from tests.plans import make_plan


def log(rows: int, left_out: int = 0) -> dict[str, int]:
    return {"rows": rows, "left_out": left_out, "trainable_parameters": 9_768_960}


def test_every_trained_stage_has_a_row_of_the_checkpoint_that_goes_on() -> None:
    plan = make_plan("convergence", "nurse", checkpoint=2)
    logs = {"converge": {"epoch_02": log(398, 2), "final": log(0)}, "mark": {"final": log(600)}}

    table = describe_training(plan, **logs)

    assert list(table) == [*plan.columns, "stage", "rows", "left_out", "parameters"]
    assert table.iloc[:, len(plan.columns) :].to_numpy().tolist() == [
        ["converge", 398, 2, 9_768_960],
        ["mark", 600, 0, 9_768_960],
    ]
    assert set(table["plan"]) == {plan.fingerprint}


def test_what_is_not_trained_has_none() -> None:
    at_the_start = make_plan("convergence", "nurse", checkpoint=0)
    baseline = make_plan("lang_inversion", "baseline")

    assert describe_training(at_the_start, converge={}, mark={"final": log(600)})["stage"].tolist() == ["mark"]
    assert describe_training(baseline, tune={}).empty
