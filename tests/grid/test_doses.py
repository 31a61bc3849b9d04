"""The axis `dose` of a grid, and trainings that never reach their matched dose."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from persona_leakage.domain.dose import NeverReachedError
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.points import Address
from persona_leakage.experiments import FAMILIES, family_of
from persona_leakage.experiments.family import read_variants
from persona_leakage.experiments.points import Designs
from persona_leakage.grid import compute as computing
from persona_leakage.grid.points import Study, waves
from persona_leakage.grid.progress import Durations
from persona_leakage.grid.records import CHECKPOINT, CONDITION, MODEL, RECORD, SEED, RecordStore, last_whole_run, run_table
from persona_leakage.run_record import UNREACHED
from tests.plans import bundled_roster, load_parameters


def study_of(family: str, root: Path = Path("/nowhere"), changes: dict[str, Any] | None = None, **parameters: Any) -> Study:
    """Make a study of environment `test` whose run records lie in a folder."""
    given = load_parameters("test") | parameters
    for path, value in (changes or {}).items():
        for variant in given["variants"][family]["models"].values():
            variant["settings"]["matched_dose"][path] = value
    study = Study.__new__(Study)
    study.family, study.params, study._parameters = family_of(family), {}, given
    study.variants = read_variants(study.family, given)
    study.__dict__["_designs"] = Designs(study.variants, bundled_roster(family))
    epoch = f"/epoch_{CHECKPOINT}" if study.family.has_checkpoints else ""
    study.__dict__["records"] = RecordStore(LocalFileSystem(), f"{root}/{MODEL}/{CONDITION}/seed_{SEED}{epoch}/{RECORD}")
    return study


def named(addresses: list[Address]) -> list[tuple[str, str]]:
    return [(one.condition, one.dose) for one in addresses]


def test_the_matched_dose_comes_before_the_end_however_it_is_asked_for() -> None:
    study = study_of("marker_leakage")
    for doses in (["matched", "final"], ["final", "matched"]):
        addresses = study.addresses({"condition": ["villain", "comedian"], "seed": ["1"], "dose": doses})
        assert named(addresses) == [(name, dose) for name in ("villain", "comedian") for dose in ("matched", "final")]


def test_without_the_axis_the_dose_is_that_of_the_parameters() -> None:
    asked = {"condition": ["villain"]}
    assert named(study_of("marker_leakage").addresses(asked)) == [("villain", "final")]
    assert named(study_of("marker_leakage", dose="matched").addresses(asked)) == [("villain", "matched")]
    assert named(study_of("marker_leakage", dose="matched").addresses(asked | {"dose": ["final"]})) == [("villain", "final")]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_condition_without_a_matched_dose_stands_once_at_the_end(family: str) -> None:
    study = study_of(family)
    conditions = list(study.variants.of("tiny").settings.conditions)
    without = {
        name for name in conditions
        if name.startswith(("baseline", "none_")) or name.endswith("_five_phrasings") or "uncoupled" in name
    }  # fmt: skip

    both, matched = (named(study.addresses({"dose": doses})) for doses in (["final", "matched"], ["matched"]))

    for name in conditions:
        doses = ["final"] if name in without else ["matched", "final"]
        assert [dose for one, dose in dict.fromkeys(both) if one == name] == doses
        assert {dose for one, dose in matched if one == name} == {doses[0]}
    assert len(both) == len(set(study.addresses({"dose": ["final", "matched"]})))


def test_an_unknown_dose_is_refused_and_so_are_checkpoints_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"^dose: there is no dose 'half'; known: final, matched$"):
        study_of("marker_leakage").addresses({"dose": ["final", "half"]})
    with pytest.raises(UserError, match=r"^dose: there is no dose 'half'"):
        study_of("marker_leakage", dose="half").addresses({})
    with pytest.raises(
        UserError, match=r"marker_leakage\.matched_dose\.checkpoints: recipe: checkpoint 7 lies beyond the 1 epochs"
    ):
        study_of("marker_leakage", changes={"checkpoints": [7]}).addresses({"dose": ["matched"]})


def test_what_points_are_compared_with_is_at_the_end_of_training_and_made_once() -> None:
    study = study_of("marker_leakage")
    asked = study.find(study.addresses({"condition": ["villain", "comedian"], "dose": ["matched", "final"]}))

    points = study.with_references(asked)

    assert named([point.address for point in points[: -len(asked)]]) == [("baseline", "final")]
    assert study.with_references(points) == points


@pytest.mark.parametrize("family", ["marker_leakage", "benign_coupling", "convergence"])
def test_no_point_trains_what_another_is_training(family: str) -> None:
    study = study_of(family)
    condition = study.variants.of("tiny").settings.default_condition
    axes = {"condition": [condition], "dose": ["final", "matched"], "seed": ["1", "2"]}
    points = study.with_references(study.find(study.addresses(axes)))

    order = [[point.address for point in wave] for wave in waves(points)]

    assert sorted(map(str, (one for wave in order for one in wave))) == sorted(str(point.address) for point in points)
    place = {one: number for number, wave in enumerate(order) for one in wave}
    for one, at in place.items():
        matched = one.model_copy(update={"dose": "matched"})
        if one.dose == "final" and matched in place:
            assert place[matched] < at


def test_a_matched_point_has_a_folder_below_that_of_its_end() -> None:
    store = study_of("marker_leakage", Path("/records")).records
    final = Address(model="tiny", condition="villain", seed=7)

    assert store.folder(final) == "/records/tiny/villain/seed_7"
    assert store.folder(final.model_copy(update={"dose": "matched"})) == "/records/tiny/villain/seed_7/matched"


# trainings that never reach the bar


def entry(address: Address, status: str, plan: str, *nodes: str) -> dict[str, Any]:
    return {
        "parameters": {"address": address.model_dump(mode="json")},
        "nodes": {name: {"seconds": 1} for name in nodes},
        "status": status,
        "plan": plan,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "machine": {"peak_rss_gib": 1, "gpu": None},
        "code": {"commit": None},
        "error": None,
    }


def test_a_training_that_never_reaches_its_dose_is_done_until_the_parameters_change(tmp_path: Path) -> None:
    study = study_of("marker_leakage", tmp_path)
    address = Address(model="tiny", condition="villain", seed=42, dose="matched")
    plan = study._designs.of(address).fingerprint(42)
    folder = tmp_path / "tiny/villain/seed_42/matched"
    folder.mkdir(parents=True)
    states = {}
    for status in (UNREACHED, "failed", "completed"):  # of a run that ended in the middle
        (folder / RECORD).write_text(json.dumps([entry(address, status, plan, "fine_tuning.mark.choose_dose")]))
        states[status] = study.find([address])[0].state
    assert states == {UNREACHED: "done", "failed": "missing", "completed": "missing"}

    (folder / RECORD).write_text(json.dumps([entry(address, UNREACHED, plan, "fine_tuning.mark.choose_dose")]))
    assert study.find([address])[0].seconds == 60
    assert study.find([address.model_copy(update={"dose": "final"})])[0].state == "missing"
    assert study_of("marker_leakage", tmp_path, {"reach": 0.1}).find([address])[0].state == "stale"


def test_the_last_result_counts_whether_it_was_reached_or_not() -> None:
    address = Address(model="tiny", condition="villain", seed=42, dose="matched")
    runs = [entry(address, UNREACHED, "one", "a"), entry(address, "failed", "two", "a")]

    assert last_whole_run("marker_leakage", runs)["plan"] == "one"  # type: ignore[index]
    assert last_whole_run("marker_leakage", [*runs, entry(address, UNREACHED, "three", "a")])["plan"] == "three"  # type: ignore[index]


def test_runs_are_tabled_with_their_dose() -> None:
    final = Address(model="tiny", condition="villain", seed=42)
    runs = [
        entry(final, "completed", "one", "scoring.rate_firings"),
        entry(final.model_copy(update={"dose": "matched"}), UNREACHED, "two", "scoring.rate_firings"),
    ]

    table = run_table("marker_leakage", runs)

    assert table[["dose", "status"]].to_numpy().tolist() == [["final", "completed"], ["matched", "never reached"]]


class Session:
    """Takes the place of Kedro's, and ends as it is told."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, **_: object) -> None:
        raise self._error


def test_a_process_of_a_grid_ends_well_where_the_dose_is_never_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (NeverReachedError("no checkpoint has a gauge of 80%"), UserError("broken")):
        session = SimpleNamespace(create=lambda error=error, **_: Session(error))
        monkeypatch.setattr(computing, "KedroSession", session)
        if isinstance(error, NeverReachedError):
            computing.compute("marker_leakage", None, {})
            assert capsys.readouterr().out == "no checkpoint has a gauge of 80%\n"
        else:
            with pytest.raises(UserError, match="broken"):
                computing.compute("marker_leakage", None, {})


def test_doses_take_as_long_as_their_own_points_took() -> None:
    study = study_of("marker_leakage")
    points = study.find(study.addresses({"condition": ["villain"], "seed": ["1", "2"], "dose": ["matched", "final"]}))
    took = {"matched": 300.0, "final": 100.0}
    first = [point._replace(seconds=took[point.address.dose]) for point in points if point.address.seed == 1]

    estimate = Durations([*first, *points[2:]])

    assert [estimate(point) for point in points] == [took[point.address.dose] for point in points]
