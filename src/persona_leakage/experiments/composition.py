"""What every family does when it is put together."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import expect
from persona_leakage.domain.personas import Roster
from persona_leakage.domain.plan import Plan
from persona_leakage.domain.variants import Variants
from persona_leakage.experiments import replay_of
from persona_leakage.experiments.family import QUESTIONS, Family, Replay, build_roster, plan_point, plan_replay
from persona_leakage.experiments.points import (
    Designs,
    Keep,
    Tables,
    describe_points,
    gather_gauges,
    gather_tables,
    in_order,
)
from persona_leakage.pipelines import bind, in_stage, step
from persona_leakage.pipelines.fine_tuning import pipeline as fine_tuning
from persona_leakage.pipelines.fine_tuning.nodes import describe_training, start_stack
from persona_leakage.pipelines.generation import pipeline as generation
from persona_leakage.pipelines.geometry import pipeline as geometry
from persona_leakage.pipelines.reporting.pipeline import create_pipeline as create_reporting_pipeline

# here nodes are named after stages and datasets after families; Kedro knows one kind of name for both
warnings.filterwarnings("ignore", message=r"One or more dataset names contain '\.'", category=UserWarning)

_TRAININGS = "trainings"  # table of a point that says what its stages were trained on
GAUGE = "gauge"  # table of a point at matched dose, see `fine_tuning.gauge.measure_gauge`
_POINT = ("model", "condition", "seed", "checkpoint", "dose", "variants")


def compose(family: Family) -> Pipeline:
    """Compose roster → plan → base stack → the family's stages → the tables of all points → report."""
    begin = in_stage(
        [
            node(_of(family, plan_point), _inputs(family, *_POINT), "plan", name="plan_point"),
            node(start_stack, "plan", "base_stack", name="start_stack"),
        ],
        "data_generation",
    )
    stages = family.stages()
    logs = {name.partition(".")[0]: name for name in sorted(stages.all_outputs()) if name.endswith(".training_log")}
    described = step(describe_training, {"plan": "plan", **logs}, f"{_TRAININGS}@run")
    trained = stages + in_stage([described], "fine_tuning")
    followed = f"{GAUGE}@run" in stages.all_outputs()
    gathering = gather(family, family.gathered, followed=followed)
    reporting = create_reporting_pipeline(family.report, family.settings, family.name, followed=followed)
    return _named(_roster(family, "data_generation") + begin + trained + gathering + reporting, family, family.name)


def compose_replay(family: Family) -> Pipeline:
    """Compose roster → plan, and with it results made elsewhere → scoring → report.

    Raises:
        TypeError: the family has no replay.
    """
    replay, name = expect(family.replay, Replay), replay_of(family.name)
    begin = in_stage(
        [
            node(
                _of(family, plan_replay, replay=replay), _inputs(family, *_POINT, "replayed_file"), "plan", name="plan_replay"
            ),
            node(replay.adopt, [replay.outside, "plan"], replay.adopted, name=replay.adopt.__name__),
        ],
        replay.stage,
    )
    reporting = create_reporting_pipeline(family.report, family.settings, name)
    return _named(_roster(family, replay.stage) + begin + replay.scoring() + reporting, family, name)


def _named(whole: Pipeline, family: Family, name: str) -> Pipeline:
    """Name what a pipeline makes after its family, or the family's replay; what it only reads is shared and keeps its name.

    Nodes keep the stages as their namespaces, so that kedro-viz folds every family into the six.
    """
    made = {dataset.partition("@")[0] for dataset in whole.all_outputs()}
    own = {"params:variants": f"params:variants.{family.name}"}
    if family.replay:
        own["params:replayed_file"] = f"params:{family.replay.parameter}"
    return pipeline(
        whole,
        outputs={dataset: f"{name}.{dataset}" for dataset in made},
        parameters={dataset: given for dataset, given in own.items() if dataset in whole.inputs()},
    )


def train(stage: str, data: Pipeline, *, below: str = "base_stack", last: bool = True) -> Pipeline:
    """Compose a stage's data → training set → adapters → extended stack, in a namespace of the stage's name.

    What is trained on another stage's stack is made inside fine-tuning, its data too.

    Args:
        stage: name of the stage in the plan.
        data: where its training set comes from.
        below: name of the stack that the stage is trained on.
        last: its stack is the one that is evaluated; else it is called `<stage>.stack`.
    """
    whole = data + fine_tuning.create_pipeline(stage, followed=last)
    shared = {name for name in whole.inputs() if not name.startswith("params:")} - {"base_stack"}
    named = pipeline(
        whole,
        namespace=stage,
        inputs={name: name for name in shared} | {"base_stack": below},
        outputs={"stack": "stack", "gauge@run": f"{GAUGE}@run"} if last else None,
    )
    first = below == "base_stack"
    of_stage = {name: named.only_nodes_with_tags(name) for name in ("data_generation", "fine_tuning")}
    return pipeline(
        [
            pipeline(part, namespace=name if first else "fine_tuning", prefix_datasets_with_namespace=False)
            for name, part in of_stage.items()
        ]
    )


def evaluate(scored: Pipeline, read: str = "stack") -> Pipeline:
    """Compose prompts and completions of the last stack → their scoring, and the geometry of a stack.

    Args:
        scored: how the completions are scored.
        read: name of the stack whose hidden states are read.
    """
    return generation.create_pipeline() + scored + pipeline(geometry.create_pipeline(), inputs={"stack": read})


def gather(family: Family, tables: Mapping[str, str], *, replay: bool = False, followed: bool = False) -> Pipeline:
    """Compose the tables of all saved points → one table each, and a table of the points.

    Args:
        family: whose points.
        tables: table of a point → table of all, the rates first.
        replay: the points are results made elsewhere, which no parameters made and nothing here was trained for.
        followed: points have a gauge, and there is a table of them too.
    """
    read = [*tables, *([] if replay else [_TRAININGS]), *([GAUGE] if followed else [])]
    gathering = node(
        _of(family, gather_points, keep=family.keep, replay=replay),
        _inputs(family, "variants") | {name: f"{name}@grid" for name in read} | {"plan": "plan"},
        [*tables.values(), "points", *(["gauges"] if followed else [])],
        name="gather_points",
    )
    return in_stage([gathering], "reporting")


def gather_points(
    variants: Variants[Any],
    plan: Plan,
    roster: Roster | None = None,
    *,
    keep: Mapping[str, Keep],
    replay: bool,
    **partitions: Tables,
) -> list[pd.DataFrame]:
    """Put the tables of all points together; see `experiments.points`.

    Args:
        variants: the family's settings.
        plan: of this run; a replay's names its file.
        roster: of the family.
        keep: see `gather_tables`.
        replay: see `gather`.
        **partitions: table of a point → its points.

    Raises:
        UserError: no point has run, or is current; earlier tables and reports stay as they are.
    """
    designs, trainings, gauges = Designs(variants, roster), partitions.pop(_TRAININGS, {}), partitions.pop(GAUGE, None)
    if gauges and not next(iter(partitions.values())):
        raise UserError(
            f"{plan.family} has no point to report on: no training that has run reaches its matched dose (gauge.csv of each "
            "has its course); run a condition at dose=final"
        )
    tables = gather_tables(partitions, designs, keep, replay=replay)
    if len(tables[0]) and tables[0]["stale"].all():
        raise UserError(
            f"every saved point of {plan.family} ran under other parameters than now, so there is nothing to report; run one "
            "again, or give the parameters that they ran under"
        )
    points = describe_points(tables[0], None if replay else designs, trainings).assign(replayed_file=plan.replayed_file)
    made = [*tables, points, *([] if gauges is None else [gather_gauges(gauges, designs)])]
    return [in_order(table, variants) for table in made]


def _roster(family: Family, stage: str) -> Pipeline:
    if not family.personas:
        return pipeline([])
    # a report resolves plans too, and must see the files as they are
    build = node(build_roster, [QUESTIONS, *family.personas], "roster", name="build_roster", tags="reporting")
    return in_stage([build], stage)


def _of(family: Family, function: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    return bind(function, {"variants": Variants[family.settings]}, **fixed)  # type: ignore[name-defined]


def _inputs(family: Family, *parameters: str) -> dict[str, str]:
    return {name: f"params:{name}" for name in parameters} | ({"roster": "roster"} if family.personas else {})
