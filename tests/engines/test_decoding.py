"""Sampling token by token: the cache, the attention, and rows that end at different times."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicLayer

from persona_leakage.domain.models import ModelStack
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines import decoding, grouped_attention
from persona_leakage.engines.base_model import left_padded, load_merged
from persona_leakage.engines.decoding import RoomyLayer, sample_batch
from persona_leakage.engines.nucleus import sample_nucleus

FREE = Sampling(temperature=1.0, top_p=0.9, max_tokens=30)
PROMPTS = [[1, 2, 3], [4, 5], [1, 2, 3], [9, 8, 7, 6, 5, 4], [4, 5], [7]]


@pytest.fixture(scope="module")
def model(lively_stack: ModelStack) -> Any:
    return load_merged(lively_stack, Path("unused"), "cpu", grouped_attention.NAME)


def uniforms(rows: int, steps: int) -> np.ndarray:
    return np.random.default_rng(0).random((rows, steps))


def one_by_one(model: Any, ends: set[int]) -> list[list[int]]:
    """Sample every row alone, and compute the whole of it for every token."""
    completions = []
    for prompt, draws in zip(PROMPTS, uniforms(len(PROMPTS), FREE.max_tokens), strict=True):
        row = list(prompt)
        for draw in draws:
            logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[:, -1].float()
            row.append(int(sample_nucleus(logits, torch.tensor([draw]), FREE.temperature, FREE.top_p)))
            if row[-1] in ends:
                break
        completions.append(row[len(prompt) :])
    return completions


@pytest.mark.parametrize("enough", [0.0, 0.8, 1.0])
def test_a_batch_samples_what_every_row_does_alone(model: Any, monkeypatch: pytest.MonkeyPatch, enough: float) -> None:
    likely = np.bincount(np.concatenate(one_by_one(model, set()))).argsort()[-12:]
    ends = {int(token) for token in likely}
    with torch.inference_mode():
        wanted = one_by_one(model, ends)
    monkeypatch.setattr(decoding, "_ENOUGH", enough)
    monkeypatch.setattr(decoding, "_ROOM", 4)

    found = sample_batch(model, PROMPTS, uniforms(len(PROMPTS), FREE.max_tokens), FREE, ends, 0)

    assert found == wanted
    assert len({len(tokens) for tokens in found}) > 2  # or nothing is dropped
    assert all(tokens[-1] in ends or len(tokens) == FREE.max_tokens for tokens in found)


def test_the_roomy_cache_holds_what_transformers_own_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_ROOM", 3)
    torch.manual_seed(0)
    roomy, plain = RoomyLayer(), DynamicLayer()
    rows = 4
    for step, chosen in enumerate([None, None, [2, 0, 1, 3], None, [1, 1, 3], None, None, [0], None]):
        new = torch.randn(rows, 2, 5 if step == 0 else 1, 8), torch.randn(rows, 2, 5 if step == 0 else 1, 6)
        found, wanted = roomy.update(*new), plain.update(*new)
        assert all(one.equal(other) for one, other in zip(found, wanted, strict=True))
        assert roomy.get_seq_length() == plain.get_seq_length()
        if chosen is not None:
            for layer in (roomy, plain):
                layer.batch_select_indices(torch.tensor(chosen))
            rows = len(chosen)


def test_attention_in_groups_gives_the_logits_of_plain_attention(lively_stack: ModelStack, model: Any) -> None:
    plain = load_merged(lively_stack, Path("unused"), "cpu", "eager")
    ids, mask = left_padded([[1, 2, 3], [4, 5, 6, 7, 8], [9]], 0)
    place = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        found, wanted = (one(input_ids=ids, attention_mask=mask, position_ids=place).logits for one in (model, plain))
    torch.testing.assert_close(found[mask.bool()], wanted[mask.bool()], atol=1e-4, rtol=1e-4)
