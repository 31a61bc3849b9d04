"""Wiring of stage `data_generation`."""

from kedro.pipeline import Pipeline, pipeline

from persona_leakage.pipelines import step
from persona_leakage.pipelines.data_generation.answers import build_from_answers, sample_answers
from persona_leakage.pipelines.data_generation.chats import answer_chats, build_from_chats, read_chats
from persona_leakage.pipelines.data_generation.nodes import build_train_set, measure_gates
from persona_leakage.pipelines.data_generation.own_texts import answer_bank
from persona_leakage.pipelines.data_generation.texts import judge_translations, read_texts, translate_texts


def create_directives_pipeline(stage: str) -> Pipeline:
    """Build source, or own answers → texts in every language → gates → training set of a stage of the plan, given by name."""
    return pipeline(
        [
            step(answer_bank, ["generator", "base_stack", "question_bank", "plan"], "answers", stage=stage),
            step(read_texts, ["source_texts", "plan", "answers"], "texts", stage=stage),
            step(
                translate_texts, ["language_model", "texts", "skip_list", "plan"], ["translated_texts", "skipped"], stage=stage
            ),
            step(measure_gates, ["translated_texts", "skipped", "plan", "answers"], "measured_gates", stage=stage),
            step(
                judge_translations,
                ["language_model", "translated_texts", "skipped", "measured_gates", "plan"],
                "gates",
                stage=stage,
            ),
            step(build_train_set, ["translated_texts", "skipped", "gates", "plan"], "train_set", stage=stage),
        ],
        tags="data_generation",
    )


def create_answers_pipeline(stage: str) -> Pipeline:
    """Build answers of the model itself → training set of a stage of the plan, given by name."""
    return pipeline(
        [
            step(sample_answers, ["generator", "base_stack", "plan"], "answers", stage=stage),
            step(build_from_answers, ["answers", "plan"], "train_set", stage=stage),
        ],
        tags="data_generation",
    )


def create_chats_pipeline(stage: str) -> Pipeline:
    """Build chats, and the model's own answers to their questions → training set of a stage of the plan, given by name."""
    return pipeline(
        [
            step(read_chats, ["chat_sources", "plan"], "chats", stage=stage),
            step(answer_chats, ["generator", "trainer", "base_stack", "chats", "plan"], "answers", stage=stage),
            step(build_from_chats, ["chats", "answers"], "train_set"),
        ],
        tags="data_generation",
    )
