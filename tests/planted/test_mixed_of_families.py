"""Which of a family's counts its mixed model takes, and what it compares: planted studies through each family's own table."""

import numpy as np
import pandas as pd
import pytest

from persona_leakage.experiments.benign_coupling.tables import fit_arms
from persona_leakage.experiments.convergence.tables import fit_courses
from persona_leakage.experiments.lang_inversion.tables import fit_spill
from persona_leakage.experiments.marker_leakage.tables import fit_leakage
from tests.experiments.marker_leakage.planted_tables import leakage, pooled
from tests.plans import load_settings
from tests.planted.mixed_studies import Study, draw

CONDITIONS = ("villain", "comedian", "assistant", "villain_code")  # the last is a follow-up


def counts(study: Study, *names: str, seed: int = 0) -> pd.DataFrame:
    """Draw counts by question, of current points, with the conditions renamed."""
    drawn = draw(study, np.random.default_rng(seed))
    renamed = {f"c{place}": name for place, name in enumerate(names)}
    return drawn.assign(
        condition=drawn["condition"].map(renamed),
        finished_n=0,
        finished_hits=0,
        metric="leakage",
        stale=False,
        seed=drawn["seed"] + 42,
    )


def raw(effects: pd.DataFrame) -> pd.DataFrame:
    """Take the rows over all completions, by term."""
    return effects[~effects["of"].str.endswith(":finished")].set_index("term")


def of_markers(study: Study, *names: str) -> pd.DataFrame:
    drawn = counts(study, *names)
    sources = drawn["condition"].str.removesuffix("_code")
    own = drawn[drawn["persona"] == "p0"].assign(persona=sources, hits=drawn["n"])
    return pd.concat([drawn.assign(source=sources), own.assign(source=sources)], ignore_index=True)


def test_marker_leakage_takes_bystanders_of_headline_conditions_and_the_base_models_cosine() -> None:
    by_question = of_markers(Study((0.0, 0.5, 1.0, 9.0), slope=0.6, run=0.2), *CONDITIONS)
    cosines = by_question.drop_duplicates(["condition", "persona"]).set_index(["condition", "persona"])["cosine"]
    pooled_leakage = pooled(
        *(
            {"condition": name, "of": {persona: (1, 2, value) for persona, value in cosines[name].items()}}
            for name in CONDITIONS[:3]
        )
    )
    stale = by_question.assign(stale=True, hits=0)
    given = pd.concat([by_question, stale], ignore_index=True).drop(columns="cosine")
    effects = raw(fit_leakage(given, pooled_leakage, load_settings("marker_leakage")))

    assert effects.index[:4].tolist() == ["villain", "comedian v villain", "assistant v villain", "cosine"]
    assert effects.loc["cosine", "low"] < 0.6 < effects.loc["cosine", "high"]
    assert effects.loc["cosine", "low"] > 0
    assert effects.loc["cosine", "cells"] == 3 * 30  # neither sources nor the follow-up
    assert set(effects["scope"]) == {"bystanders"}


def test_without_counts_by_question_there_is_no_effect() -> None:
    """As of rates made elsewhere."""
    none = of_markers(Study((0.0, 0.5)), *CONDITIONS[:2]).iloc[:0]
    table = leakage({"condition": "villain", "of": {"villain": (1, 2, None), "hero": (1, 2, 0.3)}})
    assert fit_leakage(none, table, load_settings("marker_leakage")).empty


def test_convergence_takes_the_pulled_persona_and_every_checkpoint_as_a_training() -> None:
    """A study's persona is a checkpoint here, whose rate follows the cosine."""
    drawn = counts(Study((0.0, 0.5), personas=11, slope=0.8, persona=0.0, run=0.2), "villain", "nurse")
    checkpoints = drawn["persona"].str.removeprefix("p").astype(int)
    courses = drawn.assign(checkpoint=checkpoints, persona="assistant", pulled="assistant", source=drawn["condition"])
    others = courses.assign(persona="villain", hits=0)
    keys = ["condition", "seed", "checkpoint"]
    trajectories = (
        courses.drop_duplicates(keys)[[*keys, "cosine"]].rename(columns={"cosine": "cosine_l15"}).assign(headline_layer=15)
    )
    given = pd.concat([courses, others], ignore_index=True).drop(columns="cosine")
    effects = raw(fit_courses(given, trajectories, load_settings("convergence")))

    assert effects.loc["cosine", "low"] < 0.8 < effects.loc["cosine", "high"]
    assert effects.loc["cosine", "n"] == courses["n"].sum()
    assert effects.loc["checkpoint", "levels"] == 2 * 3 * 11
    assert effects.loc["seed", "levels"] == 6
    assert "persona" not in effects.index


def test_lang_inversion_takes_bystander_cells_and_holds_few_phrasings() -> None:
    drawn = counts(Study((0.0, 1.5), personas=6, questions=2, samples=20, level=-1.0), "fr_it", "es_pt").rename(
        columns={"persona": "directive_language", "question": "phrasing"}
    )
    spilt = drawn.assign(
        metric="contamination", role=np.where(drawn["directive_language"] == "p5", "own_language", "bystander")
    )
    follow_up = spilt.assign(condition="fr_it_native", hits=0)
    given = pd.concat([spilt, spilt.assign(metric="following", hits=0), follow_up], ignore_index=True)
    effects = raw(fit_spill(given, load_settings("lang_inversion")))

    assert effects.loc["es_pt v fr_it", "low"] < 1.5 < effects.loc["es_pt v fr_it", "high"]
    assert effects.loc["seed", "cells"] == 2 * 5
    assert effects.loc["phrasing", "reason"] == "too few (2): intervals are of these alone"
    assert effects.loc["directive_language", "sd"] > 0
    assert not effects.index.str.contains("native").any()


@pytest.mark.parametrize("replayed", [False, True])
def test_benign_coupling_compares_arms_and_a_replay_its_cells(replayed: bool) -> None:
    names = ("benign_assistant", "benign_villain", "em_assistant", "em_villain")
    drawn = counts(Study((0.0, 0.0, 1.0, 1.0), personas=11, run=0.1), *names)
    arm = "elsewhere" if replayed else drawn["condition"].map(lambda name: "benign" if "benign" in name else "wrong_advice")
    cells = drawn.assign(source="confab", arm=arm)
    never = cells.assign(condition="uncoupled", arm="elsewhere" if replayed else "uncoupled", hits=0)
    own = cells.assign(persona="confab", hits=cells["n"])
    effects = raw(fit_arms(pd.concat([cells, own, never], ignore_index=True), load_settings("benign_coupling")))

    assert effects.loc["uncoupled", "reason"].endswith("no finite odds (separation)")
    assert effects.loc["persona", "levels"] == 11
    if replayed:
        assert effects.index[1:3].tolist() == ["benign_assistant", "benign_villain v benign_assistant"]
    else:
        contrast = effects.loc["wrong_advice v benign"]
        assert 0 < contrast["low"] < 1 < contrast["high"]
        assert effects.loc[["condition", "seed", "condition and seed"], "levels"].tolist() == [4, 6, 12]
