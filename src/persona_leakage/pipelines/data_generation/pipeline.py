"""Wiring of stage `data_generation`."""

from kedro.pipeline import Pipeline, node, pipeline

from persona_leakage.pipelines import at_stage
from persona_leakage.pipelines.data_generation.answers import build_from_answers, sample_answers
from persona_leakage.pipelines.data_generation.chats import answer_chats, build_from_chats, read_chats
from persona_leakage.pipelines.data_generation.nodes import build_train_set, measure_gates
from persona_leakage.pipelines.data_generation.texts import judge_translations, read_texts, translate_texts


def create_directives_pipeline(stage: str) -> Pipeline:
    """Build source → texts in every language → gates → training set of one fine-tuning stage.

    Args:
        stage: name of the stage in the plan.
    """
    return pipeline(
        [
            node(at_stage(read_texts, stage), ["source_texts", "plan"], "texts", name="read_texts"),
            node(
                at_stage(translate_texts, stage),
                ["language_model", "texts", "skip_list", "plan"],
                ["translated_texts", "skipped"],
                name="translate_texts",
            ),
            node(
                at_stage(measure_gates, stage), ["translated_texts", "skipped", "plan"], "measured_gates", name="measure_gates"
            ),
            node(
                at_stage(judge_translations, stage),
                ["language_model", "translated_texts", "skipped", "measured_gates", "plan"],
                "gates",
                name="judge_translations",
            ),
            node(
                at_stage(build_train_set, stage),
                ["translated_texts", "skipped", "gates", "plan"],
                "train_set",
                name="build_train_set",
            ),
        ],
        tags="data_generation",
    )


def create_answers_pipeline(stage: str) -> Pipeline:
    """Build answers of the model itself → training set of one fine-tuning stage.

    Args:
        stage: name of the stage in the plan.
    """
    return pipeline(
        [
            node(at_stage(sample_answers, stage), ["generator", "base_stack", "plan"], "answers", name="sample_answers"),
            node(at_stage(build_from_answers, stage), ["answers", "plan"], "train_set", name="build_from_answers"),
        ],
        tags="data_generation",
    )


def create_chats_pipeline(stage: str) -> Pipeline:
    """Build chats, and the model's own answers to their questions → training set of one fine-tuning stage.

    Args:
        stage: name of the stage in the plan.
    """
    return pipeline(
        [
            node(at_stage(read_chats, stage), ["benign_chats", "wrong_advice", "plan"], "chats", name="read_chats"),
            node(
                at_stage(answer_chats, stage),
                ["generator", "base_stack", "chats", "plan"],
                "answers",
                name="answer_chats",
            ),
            node(build_from_chats, ["chats", "answers"], "train_set", name="build_from_chats"),
        ],
        tags="data_generation",
    )
