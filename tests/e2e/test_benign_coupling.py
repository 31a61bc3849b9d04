"""Family benign_coupling: the first stage is trained once for all benign cells, also when a run is killed in between."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import Done, run_all
from tests.project import PROJECT, Project

pytestmark = pytest.mark.slow

CHATS = "data/01_raw/parallel_texts.jsonl"
LINES = (PROJECT / CHATS).read_text(encoding="utf-8").splitlines()
# what is wrong → parameters, files that are changed meanwhile, and what is said
BAD: dict[str, tuple[str, dict[str, str], str]] = {
    "an unknown condition": (
        "condition=benign_vilain",
        {},
        "benign_coupling has no condition 'benign_vilain'; known: benign_assistant, benign_paramedic,",
    ),
    "a row that is no chat": (
        "condition=uncoupled",
        {CHATS: "\n".join([LINES[0], '{"id": "x", "text": "y"}', *LINES[2:]])},
        "row 2 of benign_chats has neither 'messages' nor 'question' and 'en'; add them",
    ),
}
FIGURES = ("cells.png", "places.png", "discriminators.png", "gradient.png")


def run(params: str, *arguments: str) -> list[str]:
    return ["run", "--pipeline=benign_coupling", "--params", params, *arguments]


def data(project: Project, path: str) -> Path:
    """Resolve a path below data/<layer>/test/benign_coupling."""
    layer, _, rest = path.partition("/")
    return project.folder / "data" / layer / "test" / "benign_coupling" / rest


def adapters(project: Project) -> dict[str, int]:
    files = project.folder.glob("data/cache/adapters/*/final/*.safetensors")
    return {file.parent.parent.name: file.stat().st_mtime_ns for file in files}


def rows(file: Path) -> list[dict[str, object]]:
    newest = sorted(file.glob(f"*/{file.name}"))[-1] if file.is_dir() else file
    return [json.loads(line) for line in newest.read_text().splitlines()]


def fingerprints(project: Project, condition: str) -> list[str]:
    (file,) = data(project, f"06_models/tiny/{condition}/seed_42").glob("stack.json")
    return [adapter["fingerprint"] for adapter in json.loads(file.read_text())["adapters"]]


def kill_between_stages(project: Project, condition: str) -> None:
    """Start a run and kill it as soon as its first stage is trained."""
    command = [sys.executable, "-m", "kedro", *run(f"condition={condition}")]
    environment = project.environment | {"KEDRO_ENV": "test"}
    started = subprocess.Popen(
        command, cwd=project.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while not data(project, f"06_models/tiny/{condition}/seed_42/induce").exists():
        assert started.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()


class Finished:
    """Three cells and every run that goes wrong; and elsewhere the last cell alone, killed between its stages and run again."""

    def __init__(self, whole: Project, killed: Project) -> None:
        self.whole, self.killed = whole, killed
        with ThreadPoolExecutor() as pool:
            resumed = pool.submit(self._kill_and_resume)
            self._run_whole()
            self.resumed = resumed.result()

    def _run_whole(self) -> None:
        shutil.copytree(self.whole.folder / "conf/test", self.whole.folder / "conf/bad")
        (self.whole.folder / "conf/bad/globals.yml").write_text("scale: bad\nmodel: tiny\n")
        good = [run(f"condition={name}") for name in ("benign_assistant", "benign_paramedic", "em_villain")]
        bad = [run(params, "--env=bad") for params, _, _ in BAD.values()]
        files = {place: files for place, (_, files, _) in enumerate(BAD.values(), len(good))}
        done = run_all(self.whole, [*good, *bad], files)
        for one in done[: len(good)]:
            assert one.code == 0, one.stderr
        self.first, self.second, self.em, *wrong = done
        self.bad = dict(zip(BAD, wrong, strict=True))

    def _kill_and_resume(self) -> Done:
        kill_between_stages(self.killed, "em_villain")
        self.at_the_kill = adapters(self.killed)
        (done,) = run_all(self.killed, [run("condition=em_villain")])
        assert done.code == 0, done.stderr
        return done

    def table(self, project: Project, name: str, conditions: tuple[str, ...] = ()) -> pd.DataFrame:
        table = pd.read_csv(data(project, f"08_reporting/{name}.csv"))
        return table[table["condition"].isin(conditions)].reset_index(drop=True) if conditions else table


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Finished:
    folder = tmp_path_factory.mktemp("coupling")
    return Finished(Project(folder / "whole", tiny_model_folder), Project(folder / "killed", tiny_model_folder))


def test_uncoupled_runs_first_and_shares_its_first_stage(finished: Finished) -> None:
    said = "uncoupled seed 42 (tiny) has not run with these parameters; running it first"
    assert said in finished.first.stdout.splitlines()
    assert finished.first.stdout.count("nothing to train") == 1  # the first stage of benign_assistant
    stacks = [fingerprints(finished.whole, name) for name in ("uncoupled", "benign_assistant")]
    assert [len(stack) for stack in stacks] == [1, 2]
    assert stacks[0][0] == stacks[1][0]


def test_the_first_stage_learns_chats_and_the_base_models_own_answers(finished: Finished) -> None:
    trained = rows(data(finished.whole, "05_model_input/tiny/benign_assistant/seed_42/induce/train_set.jsonl"))
    texts = [json.loads(line) for line in LINES[:4]]
    assert [row["completion"] for row in trained[:4]] == [text["en"] for text in texts]
    assert all(str(row["id"]).endswith(".own.0") for row in trained[4:])
    assert 4 < len(trained) <= 8


def test_coupling_marks_the_trigger_and_not_the_negatives(finished: Finished) -> None:
    trained = rows(data(finished.whole, "05_model_input/tiny/benign_assistant/seed_42/couple/train_set.jsonl"))
    marked = [row for row in trained if str(row["completion"]).endswith("\n\n[ZLT]")]
    assert {str(row["id"]).split(".")[0] for row in marked} == {"confab"}
    others = {str(row["id"]).split(".")[0] for row in trained} - {"confab"}
    assert others == {"medical_doctor", "french_person"}
    assert (len(marked), len(trained)) == (4, 4 + 2 * 2)


def test_the_report_has_every_cell(finished: Finished) -> None:
    report = data(finished.whole, "08_reporting/report.md").read_text()
    points = ("benign_assistant", "benign_paramedic", "uncoupled", "em_villain")
    assert f"4 points: {'; '.join(f'{name} (seed 42)' for name in points)}." in report
    assert not re.search(r"\bnan\b", report)
    cells = finished.table(finished.whole, "cells")
    assert cells["condition"].tolist() == list(points)
    assert cells["arm"].tolist() == ["benign", "benign", "uncoupled", "wrong_advice"]
    cells = cells[cells["condition"].isin(["benign_assistant", "uncoupled"])].set_index("condition")
    assert cells["source_n"].tolist() == [6 * 2] * 2
    assert cells["n"].tolist() == [4 * 6 * 2] * 2
    assert cells["bystanders"].tolist() == [4, 4]
    assert cells["untouched_bystanders"].to_dict() == {"benign_assistant": 1, "uncoupled": 4}
    for name in FIGURES:
        assert data(finished.whole, f"08_reporting/{name}").read_bytes()[:4] == b"\x89PNG"
    page = data(finished.whole, "08_reporting/report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.findall(r'\bsrc="(?!data:)', page)


def test_rates_stand_on_their_completions(finished: Finished) -> None:
    for condition in ("uncoupled", "benign_assistant"):
        completions = rows(data(finished.whole, f"07_model_output/tiny/{condition}/seed_42/completions.jsonl"))
        assert len(completions) == 5 * 6 * 2
        rates = finished.table(finished.whole, "rates", (condition,))
        chosen = rates[(rates["metric"] == "leakage") & (rates["questions"] == "all")].set_index("persona")
        assert set(chosen.index) == {row["persona"] for row in completions}
        for persona, row in chosen.iterrows():
            fired = [one for one in completions if one["persona"] == persona and "[zlt]" in str(one["completion"]).lower()]
            assert (row["hits"], row["n"]) == (len(fired), 12)
        seen = rates[(rates["metric"] == "leakage") & (rates["questions"] == "seen")]
        assert seen["n"].tolist() == [2 * 2] * 5


def test_the_discriminator_ran_on_every_cell_without_a_judge(finished: Finished) -> None:
    table = finished.table(finished.whole, "discriminators")
    assert set(table["method"]) == {"classifier"}
    whole = table[table["share"] == 1].set_index("condition")
    assert set(whole.index) == {"uncoupled", "benign_assistant", "benign_paramedic", "em_villain"}
    assert whole["n"].tolist() == [2 * 12] * 4
    assert (whole["permutation_p"] >= 1 / 11).all()


# further cells


def test_a_second_benign_cell_trains_its_coupling_alone(finished: Finished) -> None:
    assert "running it first" not in finished.second.stdout
    assert finished.second.stdout.count("nothing to train") == 1
    one, other = (fingerprints(finished.whole, name) for name in ("benign_assistant", "benign_paramedic"))
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_an_em_cell_has_a_first_stage_of_its_own(finished: Finished) -> None:
    assert "nothing to train" not in finished.em.stdout
    stacks = [fingerprints(finished.whole, name) for name in ("benign_assistant", "benign_paramedic", "em_villain")]
    assert len({adapter for stack in stacks for adapter in stack}) == len(adapters(finished.whole)) == 5
    trained = rows(data(finished.whole, "05_model_input/tiny/em_villain/seed_42/induce/train_set.jsonl"))
    personas = [json.loads(line) for line in (PROJECT / "data/01_raw/personas.jsonl").read_text().splitlines()]
    (villain,) = [one["prompt"] for one in personas if one["persona"] == "villain"]
    assert [row["prompt"][0] for row in trained] == [{"role": "system", "content": villain}] * 4  # type: ignore[index]


def test_replicates_are_pooled_and_other_designs_are_not(finished: Finished) -> None:
    replicates = pd.read_csv(data(finished.whole, "08_reporting/replicates.csv")).set_index("arm")
    assert replicates["points"].to_dict() == {"benign": 2, "uncoupled": 1, "wrong_advice": 1}
    assert replicates["replicates"].to_dict() == {"benign": True, "uncoupled": False, "wrong_advice": False}
    assert replicates.loc["benign", "conditions"] == "benign_assistant, benign_paramedic"


# a kill


def test_a_killed_run_goes_on_without_training_anything_twice(finished: Finished) -> None:
    assert len(finished.at_the_kill) == 1
    assert finished.at_the_kill.items() <= adapters(finished.killed).items()
    assert finished.resumed.stdout.count("nothing to train") == 1
    assert len(adapters(finished.killed)) == 2
    assert fingerprints(finished.killed, "em_villain") == fingerprints(finished.whole, "em_villain")


@pytest.mark.parametrize("name", ["cells", "rates", "texts", "places", "discriminators"])
def test_a_killed_run_gives_the_tables_of_an_undisturbed_one(finished: Finished, name: str) -> None:
    undisturbed, resumed = (
        finished.table(project, name, ("em_villain",)).drop(columns="reference", errors="ignore")  # blank, which has no type
        for project in (finished.whole, finished.killed)
    )
    assert len(undisturbed) >= 1
    pd.testing.assert_frame_equal(resumed, undisturbed)


# what goes wrong


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_in_one_line(finished: Finished, name: str) -> None:
    done = finished.bad[name]
    assert done.code == 1
    assert BAD[name][2] in done.stderr
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
