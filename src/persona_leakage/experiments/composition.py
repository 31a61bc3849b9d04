"""What every family does when it is put together."""

from kedro.pipeline import Pipeline, pipeline

from persona_leakage.domain.errors import UserError

# sources and engines that families share
_SHARED = (
    "source_texts",
    "skip_list",
    "personas",
    "questions",
    "coupling_personas",
    "benign_chats",
    "wrong_advice",
    "outside_completions",
    "outside_persona_completions",
    "outside_rates",
    "trainer",
    "generator",
    "extractor",
    "tokenizer",
    "language_model",
)
# what every plan is resolved from
POINT = ("params:condition", "params:seed", "params:checkpoint", "params:base_model", "params:settings")


def placed(whole: Pipeline, family: str, namespace: str, replayed: str = "completions_file") -> Pipeline:
    """Put a family's pipeline, or its replay's, into its namespace, fed from the shared sources, engines and parameters.

    Args:
        whole: the pipeline.
        family: block of the parameters that holds its settings.
        namespace: the family or the replay.
        replayed: parameter that names what a replay reads.
    """
    parameters = {name: name for name in POINT} | {
        "params:replayed_file": f"params:{replayed}",
        "params:settings": f"params:{family}",
        "params:claims": f"params:{family}.claims",
        "params:escalate_from": f"params:{family}.escalation.low",
        "params:escalate_to": f"params:{family}.escalation.high",
        "params:threshold": f"params:{family}.scoring.discriminator.threshold",
        "params:early_checkpoint": f"params:{family}.early_checkpoint",
    }
    inputs = {name: name for name in _SHARED} | {"published": "published_rates"}
    free = whole.inputs()
    return pipeline(
        whole,
        namespace=namespace,
        inputs={name: place for name, place in inputs.items() if name in free},
        parameters={name: place for name, place in parameters.items() if name in free},
    )


def refuse_checkpoint(checkpoint: int | None, family: str) -> None:
    """Refuse a checkpoint in a family that has none.

    Raises:
        UserError: one is given.
    """
    if checkpoint is not None:
        raise UserError(f"{family} has no checkpoints; leave out checkpoint={checkpoint}")
