"""The transformers engine: the contract of all generators, and what only this one promises."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines import decoding
from persona_leakage.engines.transformers_generator import TransformersGenerator
from tests.engines.generator_contract import FREE, PROMPTS, GeneratorContract, journal, texts

PROJECT = Path(__file__).parents[2]
LIKELY = Sampling(temperature=0.01, top_p=0.95, max_tokens=12)


def generate(cache: Path, stack: ModelStack, *, samples: int = 3, sampling: Sampling = FREE, batch_rows: int = 5) -> list[Any]:
    generator = TransformersGenerator(cache=cache, device="cpu", batch_rows=batch_rows)
    return generator.generate(stack, PROMPTS, samples, sampling, 42)


class TestContract(GeneratorContract):
    def generator(self, cache: Path) -> TransformersGenerator:
        return TransformersGenerator(cache=cache, device="cpu", batch_rows=40)

    @pytest.fixture
    def sampled(self, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
        rows: list[list[int]] = []
        original = decoding.sample_batch

        def noting(model: Any, batch: Any, *others: Any) -> Any:
            rows.extend(batch)
            return original(model, batch, *others)

        monkeypatch.setattr(decoding, "sample_batch", noting)
        return rows


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each batch that the model really samples."""
    sizes: list[int] = []
    original = decoding.sample_batch

    def counting(model: Any, rows: Any, *others: Any) -> Any:
        sizes.append(len(rows))
        return original(model, rows, *others)

    monkeypatch.setattr(decoding, "sample_batch", counting)
    return sizes


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, lively_stack: ModelStack) -> list[Any]:
    return generate(tmp_path_factory.mktemp("uninterrupted"), lively_stack)


def test_more_samples_begin_with_the_same_ones(tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any]) -> None:
    more = generate(tmp_path, lively_stack, samples=5, batch_rows=20)

    assert texts([row for row in more if row["sample_index"] < 3]) == texts(uninterrupted)


@pytest.mark.parametrize("batch_rows", [3, 8])
def test_a_batchs_composition_does_not_change_a_prompts_completion(
    tmp_path: Path, lively_stack: ModelStack, batch_rows: int
) -> None:
    alone = generate(tmp_path, lively_stack, samples=2, sampling=LIKELY, batch_rows=1)

    together = generate(tmp_path, lively_stack, samples=2, sampling=LIKELY, batch_rows=batch_rows)

    assert together == alone


@pytest.mark.parametrize(("kept", "sampled"), [(5, [5, 2]), (7, [5, 2]), (10, [2]), (0, [5, 5, 2])])
def test_a_job_whose_journal_was_cut_goes_on_with_the_missing_batches_only(
    tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any], batches: list[int], kept: int, sampled: list[int]
) -> None:
    generate(tmp_path, lively_stack)
    file = journal(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])  # the next line half written
    batches.clear()

    rows = generate(tmp_path, lively_stack)

    assert batches == sampled
    assert rows == uninterrupted


DIES = """
import os, signal, sys
from pathlib import Path
from persona_leakage.domain.models import ModelStack
from persona_leakage.engines import journal
from tests.engines.test_transformers_generator import generate
appended = 0
def dying(descriptor):
    global appended
    appended += 1
    if appended == 2:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 30)  # the disk took all but the end
        os.kill(os.getpid(), signal.SIGKILL)
journal.os.fsync = dying
generate(Path(sys.argv[1]), ModelStack.model_validate_json(sys.argv[2]))
"""


def test_a_process_that_is_killed_while_it_writes_its_second_batch_loses_only_that_one(
    tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any], batches: list[int]
) -> None:
    command = [sys.executable, "-c", DIES, str(tmp_path), lively_stack.model_dump_json()]
    assert subprocess.run(command, cwd=PROJECT, capture_output=True, check=False, timeout=120).returncode == -signal.SIGKILL
    assert journal(tmp_path).read_bytes().count(b"\n") == 9
    assert not journal(tmp_path).read_bytes().endswith(b"\n")

    rows = generate(tmp_path, lively_stack)

    assert batches == [5, 2]
    assert rows == uninterrupted
