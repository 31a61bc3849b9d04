"""Train the adapters of a stage and put the last one on the stack."""

from collections.abc import Mapping, Sequence

import pandas as pd

from persona_leakage.domain.models import Adapter, ModelStack, checkpoint_name
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.protocols import Trainer
from persona_leakage.domain.rows import TrainRow
from persona_leakage.pipelines.fine_tuning.gauge import ChosenDose

TRAINING_COLUMNS = ("stage", "rows", "left_out", "parameters")


def start_stack(plan: Plan) -> ModelStack:
    """Begin with the base model and no adapter."""
    return ModelStack(base=plan.base_model)


def train_adapters(
    trainer: Trainer, base_stack: ModelStack, train_set: Sequence[TrainRow], plan: Plan, *, stage: str
) -> tuple[dict[str, Adapter], dict[str, dict[str, object]]]:
    """Train the stage's adapters on top of the stack.

    Returns:
        checkpoint → adapter and checkpoint → training log; both empty when the condition does not train this stage, or only
        looks at where it begins.
    """
    trains = plan.stages.get(stage)
    if trains is None or trains.checkpoint == 0:
        return {}, {}
    trained = trainer.train(base_stack, train_set, trains.recipe, plan.seed_of(stage))
    return (
        {checkpoint: result.adapter for checkpoint, result in trained.items()},
        {checkpoint: result.log for checkpoint, result in trained.items()},
    )


def extend_stack(
    base_stack: ModelStack, adapters: Mapping[str, Adapter], plan: Plan, dose: ChosenDose | None = None, *, stage: str
) -> ModelStack:
    """Put the adapter of the stage's checkpoint, or of the dose that was chosen, on the stack.

    Without one, or at epoch 0, the stack passes through.
    """
    trains = plan.stages.get(stage)
    if trains is None or trains.checkpoint == 0:
        return base_stack
    return base_stack.extended(adapters[dose["at"] if dose else checkpoint_name(trains.checkpoint)])


def describe_training(plan: Plan, **logs: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Say what every stage was trained on.

    Args:
        plan: of the point.
        **logs: stage → checkpoint → training log.

    Returns:
        One row a stage that was trained: the point, plan, stage, rows (that were trained on), left_out (rows of which
        `max_length` left nothing) and parameters (trainable ones).
    """
    used = [
        (name, logs[name][checkpoint_name(stage.checkpoint)]) for name, stage in plan.stages.items() if stage.checkpoint != 0
    ]
    rows = [(*plan.columns.values(), name, log["rows"], log["left_out"], log["trainable_parameters"]) for name, log in used]
    return pd.DataFrame(rows, columns=[*plan.columns, *TRAINING_COLUMNS])
