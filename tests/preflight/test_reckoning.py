"""What is foretold before a run."""

from typing import Any

import pytest

from persona_leakage.preflight import examination
from persona_leakage.preflight.examination import reckon_seconds
from tests.plans import load_parameters, make_plan


def loader(device: str = "cpu", engine: str = "transformers_generator", **changes: Any) -> dict[str, Any]:
    estimates = {**load_parameters("test")["estimates"], **changes}
    return {"parameters": {"estimates": estimates}, "globals": {"device": device}, "catalog": {"generator": {"engine": engine}}}


@pytest.fixture(autouse=True)
def half_as_fast(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A processor of 50 GFLOP/s, and the number formats that were measured."""
    asked: list[str] = []
    monkeypatch.setattr(examination, "measure_gflops", lambda dtype: asked.append(dtype) or 50.0)
    return asked


def test_a_processor_that_is_half_as_fast_takes_twice_as_long(half_as_fast: list[str]) -> None:
    plans = [make_plan("lang_inversion", "fr_it", env="test")]
    there = reckon_seconds(plans, loader(engine_start_seconds=0))
    here = reckon_seconds(plans, loader(engine_start_seconds=0, gflops=100.0))

    assert there is not None
    assert here is not None
    assert there.likely > 1
    assert here == pytest.approx(there.times(2))
    assert half_as_fast == ["float32"]


def test_the_time_of_a_gpu_is_not_carried_over(half_as_fast: list[str]) -> None:
    plans = [make_plan("lang_inversion", "fr_it", env="test")]
    assert reckon_seconds(plans, loader("cuda", gflops=100.0)) == reckon_seconds(plans, loader("cuda"))
    assert half_as_fast == []


@pytest.mark.parametrize("changes", [{"base_model": "another"}, {"engine": "vllm_generator"}])
def test_no_time_is_foretold_of_what_nobody_measured(changes: dict[str, str]) -> None:
    assert reckon_seconds([make_plan("lang_inversion", "fr_it", env="test")], loader(**changes)) is None
