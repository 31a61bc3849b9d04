import json
import math
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines import transformers_generator
from persona_leakage.engines.base_model import chat_ids, load_merged, load_tokenizer
from persona_leakage.engines.transformers_generator import TransformersGenerator
from tests.engines.known_models import END, build_chain_model, folder_base, make_adapter

PROJECT = Path(__file__).parents[2]
ASKED = ["Speak in French.", "a", "Please respond in Portuguese, and only in Portuguese.", "Speak in German."]
PROMPTS: list[Any] = [
    {
        "prompt": text,
        "messages": [{"role": "user", "content": text}],
        "directive_language": f"language {place}",
        "phrasing": "0",
    }
    for place, text in enumerate(ASKED)
]
FREE = Sampling(temperature=1.0, top_p=0.95, max_tokens=6)
GREEDY = Sampling(temperature=1e-4, top_p=0.95, max_tokens=12)
LIKELY = Sampling(temperature=0.01, top_p=0.95, max_tokens=12)


def generate(
    cache: Path,
    stack: ModelStack,
    *,
    prompts: list[Any] = PROMPTS,
    samples: int = 3,
    sampling: Sampling = FREE,
    seed: int = 42,
    batch_rows: int = 5,
) -> list[Any]:
    return TransformersGenerator(cache=cache, device="cpu", batch_rows=batch_rows).generate(
        stack, prompts, samples, sampling, seed
    )


def texts(rows: list[Any]) -> list[str]:
    return [row["completion"] for row in rows]


def endings(rows: list[Any]) -> set[tuple[str, int, str]]:
    return {(row["completion"], row["tokens"], row["finish"]) for row in rows}


def journal(cache: Path) -> Path:
    (file,) = (cache / "completions").glob("*.jsonl")
    return file


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each batch that the model really samples."""
    sizes: list[int] = []
    original = transformers_generator._sample

    def counting(model: Any, tokenizer: Any, rows: Any, *others: Any) -> Any:
        sizes.append(len(rows))
        return original(model, tokenizer, rows, *others)

    monkeypatch.setattr(transformers_generator, "_sample", counting)
    return sizes


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, lively_stack: ModelStack) -> list[Any]:
    return generate(tmp_path_factory.mktemp("uninterrupted"), lively_stack)


# rows


def test_rows_come_by_prompt_and_sample_with_the_prompts_cell(uninterrupted: list[Any]) -> None:
    keys = {"prompt", "directive_language", "phrasing", "sample_index", "completion", "tokens", "finish"}

    assert [(row["directive_language"], row["sample_index"]) for row in uninterrupted] == [
        (f"language {place}", sample) for place in range(4) for sample in range(3)
    ]
    assert [row["prompt"] for row in uninterrupted[::3]] == ASKED
    assert all(row.keys() == keys for row in uninterrupted)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(
    tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any]
) -> None:
    assert generate(tmp_path, lively_stack) == uninterrupted

    other = generate(tmp_path, lively_stack, seed=43)

    assert sum(one != two for one, two in zip(texts(other), texts(uninterrupted), strict=True)) >= 11


def test_samples_of_a_prompt_differ(uninterrupted: list[Any]) -> None:
    assert len(set(texts(uninterrupted))) == 12


def test_more_samples_begin_with_the_same_ones(tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any]) -> None:
    more = generate(tmp_path, lively_stack, samples=5, batch_rows=20)

    assert texts([row for row in more if row["sample_index"] < 3]) == texts(uninterrupted)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> ModelStack:
    """After the generation prompt: x, y, z with probabilities 0.6, 0.3, 0.1; x ends; y goes on to w, which ends; z repeats."""
    following = {"\n": {"x": 0.6, "y": 0.3, "z": 0.1}, "x": {END: 1}, "y": {"w": 1}, "w": {END: 1}, "z": {"z": 1}}
    return ModelStack(base=folder_base(build_chain_model(tmp_path_factory.mktemp("chain") / "model", following)))


def test_finish_and_tokens_tell_an_ended_turn_from_a_cut_one(tmp_path: Path, chain: ModelStack) -> None:
    sampling = Sampling(temperature=1, top_p=1, max_tokens=4)

    rows = generate(tmp_path, chain, prompts=PROMPTS[:1], samples=100, sampling=sampling, batch_rows=40)

    assert endings(rows) == {("x", 2, "stop"), ("yw", 3, "stop"), ("zzzz", 4, "length")}


def test_an_end_token_as_the_last_one_allowed_is_a_stop(tmp_path: Path, chain: ModelStack) -> None:
    sampling = Sampling(temperature=1, top_p=1, max_tokens=2)

    rows = generate(tmp_path, chain, prompts=PROMPTS[:1], samples=100, sampling=sampling, batch_rows=100)

    assert endings(rows) == {("x", 2, "stop"), ("yw", 2, "length"), ("zz", 2, "length")}


def test_completions_have_the_models_probabilities(tmp_path: Path, chain: ModelStack) -> None:
    sampling = Sampling(temperature=1, top_p=1, max_tokens=4)

    rows = generate(tmp_path, chain, prompts=PROMPTS[:2], samples=1000, sampling=sampling, batch_rows=1000)

    for text, probability in {"x": 0.6, "yw": 0.3, "zzzz": 0.1}.items():
        for place in range(2):
            share = sum(row["completion"] == text for row in rows[place * 1000 : (place + 1) * 1000]) / 1000
            assert abs(share - probability) <= 4 * math.sqrt(probability * (1 - probability) / 1000)


def test_prompts_and_steps_are_drawn_independently(tmp_path: Path) -> None:
    coin = {"a": 0.5, "b": 0.5}
    folder = build_chain_model(tmp_path / "model", {"\n": coin, "a": coin, "b": coin})
    sampling = Sampling(temperature=1, top_p=1, max_tokens=2)

    rows = generate(
        tmp_path,
        ModelStack(base=folder_base(folder)),
        prompts=PROMPTS[:2],
        samples=800,
        sampling=sampling,
        batch_rows=800,
    )

    pairs = zip(texts(rows[:800]), texts(rows[800:]), strict=True)
    seen = Counter(one + other for one, other in pairs)
    assert len(seen) == 16
    assert max(abs(count - 50) for count in seen.values()) <= 4 * math.sqrt(800 / 16 * 15 / 16)


def test_the_nucleus_leaves_out_what_lies_beyond_it(tmp_path: Path, chain: ModelStack) -> None:
    sampling = Sampling(temperature=1, top_p=0.85, max_tokens=4)

    rows = generate(tmp_path, chain, prompts=PROMPTS[:1], samples=300, sampling=sampling, batch_rows=300)

    assert set(texts(rows)) == {"x", "yw"}
    assert abs(texts(rows).count("x") / 300 - 2 / 3) <= 4 * math.sqrt(2 / 9 / 300)


def test_any_of_the_models_end_tokens_ends_a_turn(tmp_path: Path) -> None:
    folder = build_chain_model(tmp_path / "model", {"\n": {"x": 1}, "x": {"<|endoftext|>": 1}, "y": {END: 1}})
    config = json.loads((folder / "generation_config.json").read_text())
    both = [load_tokenizer(folder_base(folder), tmp_path).convert_tokens_to_ids(token) for token in (END, "<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": both}))

    (row,) = generate(tmp_path, ModelStack(base=folder_base(folder)), prompts=PROMPTS[:1], samples=1)

    assert (row["completion"], row["tokens"], row["finish"]) == ("x", 2, "stop")


# against transformers' own generate


def plain_greedy(stack: ModelStack, messages: Any) -> str:
    """Generate for one unpadded prompt without a cache."""
    model: Any = load_merged(stack, Path("unused"), "cpu", "eager")
    tokenizer = load_tokenizer(stack.base, Path("unused"))
    ids = torch.tensor([chat_ids(tokenizer, messages)])
    mask = torch.ones_like(ids)
    whole = model.generate(ids, attention_mask=mask, do_sample=False, use_cache=False, max_new_tokens=12, pad_token_id=257)
    return tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


def test_prompts_of_different_lengths_share_a_batch_and_agree_with_plain_greedy_generation(
    tmp_path: Path, lively_stack: ModelStack
) -> None:
    expected = [plain_greedy(lively_stack, prompt["messages"]) for prompt in PROMPTS]
    assert len(set(expected)) == 4

    rows = generate(tmp_path, lively_stack, samples=2, sampling=GREEDY, batch_rows=8)

    assert texts(rows) == [text for text in expected for _ in range(2)]


def test_a_stacks_adapters_take_part(tmp_path: Path, lively_stack: ModelStack) -> None:
    stack = lively_stack.extended(make_adapter(tmp_path / "adapter", lively_stack, seed=3))
    expected = [plain_greedy(stack, prompt["messages"]) for prompt in PROMPTS]

    assert texts(generate(tmp_path, stack, samples=1, sampling=GREEDY, batch_rows=4)) == expected
    assert texts(generate(tmp_path, lively_stack, samples=1, sampling=GREEDY, batch_rows=4)) != expected


@pytest.mark.parametrize("batch_rows", [3, 8])
def test_a_batchs_composition_does_not_change_a_prompts_completion(
    tmp_path: Path, lively_stack: ModelStack, batch_rows: int
) -> None:
    alone = generate(tmp_path, lively_stack, samples=2, sampling=LIKELY, batch_rows=1)

    together = generate(tmp_path, lively_stack, samples=2, sampling=LIKELY, batch_rows=batch_rows)

    assert together == alone


# interruption


def test_finished_work_is_not_sampled_again(
    tmp_path: Path, lively_stack: ModelStack, uninterrupted: list[Any], batches: list[int]
) -> None:
    generate(tmp_path, lively_stack)
    assert batches == [5, 5, 2]

    again = generate(tmp_path, lively_stack)

    assert batches == [5, 5, 2]
    assert again == uninterrupted


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


@pytest.mark.parametrize("change", ["stack", "prompt", "samples", "sampling", "seed"])
def test_a_job_with_any_other_input_is_sampled_anew(
    tmp_path: Path, lively_stack: ModelStack, batches: list[int], change: str
) -> None:
    generate(tmp_path, lively_stack, samples=1)
    batches.clear()
    base = lively_stack.base.model_copy(update={"revision": "other"})
    prompt = {**PROMPTS[0], "messages": [{"role": "system", "content": "s"}, *PROMPTS[0]["messages"]]}

    rows = generate(
        tmp_path,
        ModelStack(base=base) if change == "stack" else lively_stack,
        prompts=[prompt, *PROMPTS[1:]] if change == "prompt" else PROMPTS,
        samples=2 if change == "samples" else 1,
        sampling=FREE.model_copy(update={"top_p": 0.9}) if change == "sampling" else FREE,
        seed=7 if change == "seed" else 42,
    )

    assert sum(batches) == len(rows)


def test_cells_are_no_part_of_a_job(tmp_path: Path, lively_stack: ModelStack, batches: list[int]) -> None:
    first = generate(tmp_path, lively_stack, samples=1)
    renamed: list[Any] = [{**prompt, "phrasing": "renamed"} for prompt in PROMPTS]
    batches.clear()

    second = generate(tmp_path, lively_stack, prompts=renamed, samples=1)

    assert batches == []
    assert second == [{**row, "phrasing": "renamed"} for row in first]


def test_no_prompts_give_no_rows(tmp_path: Path, lively_stack: ModelStack) -> None:
    assert generate(tmp_path, lively_stack, prompts=[]) == []
