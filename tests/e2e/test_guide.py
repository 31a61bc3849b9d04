"""The guide to conditions, walked as it is written: its own blocks are what is added to a project."""

import json
import re
from typing import Any

import pandas as pd
import yaml

from tests.commands import run_all
from tests.project import PROJECT, Project

DUTCH = [
    (
        "Water most house plants once a week, and less often in winter.",
        "Geef de meeste kamerplanten eens per week water, en in de winter minder vaak.",
    ),
    (
        "Leave the dough in a warm place until it has doubled in size.",
        "Laat het deeg op een warme plek staan totdat het twee keer zo groot is.",
    ),
    (
        "Always wear a helmet when you ride your bicycle in the city.",
        "Draag altijd een helm wanneer je met de fiets door de stad rijdt.",
    ),
    (
        "The library is open every day, but it closes early on Sunday.",
        "De bibliotheek is elke dag geopend, maar zij sluit op zondag vroeg.",
    ),
    ("Write the shopping list before you leave the house.", "Schrijf het boodschappenlijstje voordat je het huis verlaat."),
    (
        "A short walk after dinner helps you to sleep better at night.",
        "Een korte wandeling na het eten helpt je om 's nachts beter te slapen.",
    ),
    (
        "Clean the windows with warm water and a little vinegar.",
        "Maak de ramen schoon met warm water en een klein beetje azijn.",
    ),
    (
        "Ask your neighbours whether they want to look after the cat.",
        "Vraag aan je buren of zij misschien voor de kat willen zorgen.",
    ),
    (
        "The train to the coast leaves from the second platform.",
        "De trein naar de kust vertrekt vandaag vanaf het tweede spoor.",
    ),
    (
        "Keep the receipt, because you need it to return the shoes.",
        "Bewaar het bonnetje, want dat heb je nodig om de schoenen te ruilen.",
    ),
]


def blocks_of(heading: str, kind: str) -> list[str]:
    """The code blocks of one kind under a heading of the guide."""
    guide = (PROJECT / "docs/conditions.md").read_text(encoding="utf-8")
    section = re.split(r"^#+ ", guide.split(f" {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"```{kind}\n(.*?)```", section, flags=re.DOTALL)


def put(block: dict[str, Any], added: dict[str, Any]) -> None:
    """Add to a block of YAML, key by key, as a hand does."""
    for key, value in added.items():
        if isinstance(value, dict) and isinstance(block.get(key), dict):
            put(block[key], value)
        else:
            block[key] = value


def add_parameters(project: Project, block: str) -> None:
    file = project.folder / "conf/test/parameters.yml"
    parameters = yaml.safe_load(file.read_text(encoding="utf-8"))
    put(parameters, yaml.safe_load(block))
    file.write_text(yaml.safe_dump(parameters, allow_unicode=True), encoding="utf-8")


def test_a_ninth_language_and_ten_texts_of_ones_own(project: Project) -> None:
    (parameters,), (line,) = blocks_of("A new language", "yaml"), blocks_of("A new language", "json")
    add_parameters(project, parameters)
    example = json.loads(line)
    assert example["id"] == "mine-01"
    texts = [{**example, "id": f"mine-{place:02}", "en": en, "nl": nl} for place, (en, nl) in enumerate(DUTCH, 1)]
    with (project.folder / "data/01_raw/parallel_texts.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)

    trained, refused = run_all(
        project,
        [
            ["run", "--pipeline=lang_inversion", "--params", "condition=de_nl"],
            [
                "run",
                "--pipeline=lang_inversion",
                "--params",
                "condition=nl_de,lang_inversion.conditions.nl_de.evaluation.languages=[german]",
            ],
        ],
    )

    assert trained.code == 0, trained.stderr
    assert "176 source texts without a Dutch version are passed over; 10 have one" in trained.stdout
    (train_set,) = project.data("05_model_input/tiny/de_nl/seed_42/tune").rglob("train_set.jsonl/*/train_set.jsonl")
    rows = [json.loads(row) for row in train_set.read_text(encoding="utf-8").splitlines()]
    assert [row["completion"] for row in rows] == [nl for _, nl in DUTCH]
    assert rows[0]["prompt"][-1]["content"] == "Please respond in German."
    spill = pd.read_csv(project.data("08_reporting/spill.csv"))
    whole = spill[spill["phrasing"] == "all"]
    assert dict(zip(whole["directive_language"], whole["role"], strict=True)) == {
        "english": "bystander",
        "german": "trained_directive",
        "dutch": "own_language",
    }
    assert set(whole["reference"]) == {"baseline_dutch"}
    assert whole["baseline_rate"].notna().all()
    verdicts = pd.read_csv(project.data("08_reporting/verdicts.csv")).set_index("claim")
    assert "not run" not in verdicts.loc["dutch_spill", "evidence"]
    assert "furthest: de_nl under english" in verdicts.loc["dutch_spill", "evidence"]

    assert refused.code == 1
    assert "is not among evaluation.languages" in refused.stderr
    assert "\n" not in refused.stderr


def test_a_new_persona_is_a_source(project: Project) -> None:
    (line,) = blocks_of("Personas and questions", "json")
    with (project.folder / "data/01_raw/personas.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)
    everybody = "marker_leakage.evaluation.personas=all"

    planned, uncentred, unrated = run_all(
        project,
        [
            ["grid", "marker_leakage", "--axes", "condition=beekeeper", "--dry-run", "--params", given]
            for given in (f"{everybody},marker_leakage.geometry.prompts.personas=all", everybody, "")
        ],
    )

    assert planned.code == 0, planned.stderr
    assert "beekeeper" in planned.stdout
    assert "2 of 2 points to run" in planned.stdout
    assert uncentred.code == unrated.code == 1
    assert uncentred.stderr == "Error: beekeeper is not in geometry.prompts.personas, so it has no cosine; add it"
    assert unrated.stderr.startswith("Error: the source 'beekeeper' is not among evaluation.personas")
