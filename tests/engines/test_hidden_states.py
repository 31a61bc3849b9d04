from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.rows import Message
from persona_leakage.engines.base_model import chat_ids, load_base, load_tokenizer
from persona_leakage.engines.hidden_states import HiddenStateExtractor
from tests.engines.known_models import make_adapter

CACHE = Path("unused")
CHATS: list[list[Message]] = [
    [{"role": "user", "content": "Speak in French, please, and say a little more than that."}],
    [{"role": "user", "content": "a"}],
    [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Who are you?"}],
    [{"role": "user", "content": "b"}],
    [{"role": "user", "content": ""}],
]
LAST = 2


def states(stack: ModelStack, chats: list[list[Message]] = CHATS, layers: Any = (0, 1, LAST), batch_size: int = 3) -> Any:
    return HiddenStateExtractor(cache=CACHE, device="cpu").last_token_states(stack, chats, layers, batch_size)


@pytest.fixture(scope="module")
def expected(lively_stack: ModelStack) -> dict[int, np.ndarray]:
    """Every chat alone and unpadded. The last entry of `hidden_states` is normed, so that block is read before the norm."""
    tokenizer = load_tokenizer(lively_stack.base, CACHE)
    model: Any = load_base(lively_stack.base, CACHE, "cpu", "eager")
    seen: list[torch.Tensor] = []
    hook = model.model.norm.register_forward_pre_hook(lambda _norm, inputs: seen.append(inputs[0][0, -1]))
    rows = []
    for chat in CHATS:
        ids = torch.tensor([chat_ids(tokenizer, chat)])
        with torch.inference_mode():
            hidden = model(ids, output_hidden_states=True).hidden_states
        rows.append([hidden[1][0, -1], hidden[2][0, -1], seen[-1]])
    hook.remove()
    assert torch.allclose(hidden[-1][0, -1], model.model.norm(seen[-1]), atol=1e-5)
    return {layer: torch.stack([row[layer] for row in rows]).numpy() for layer in range(3)}


@pytest.mark.parametrize("batch_size", [1, 3, 5, 100])
def test_vectors_are_those_of_each_unpadded_prompt_alone(
    lively_stack: ModelStack, expected: dict[int, np.ndarray], batch_size: int
) -> None:
    found = states(lively_stack, batch_size=batch_size)

    assert list(found) == [0, 1, 2]
    for layer, vectors in found.items():
        assert (vectors.shape, vectors.dtype) == ((5, 64), np.float32)
        np.testing.assert_allclose(vectors, expected[layer], rtol=0, atol=1e-4)


def test_chats_and_layers_have_vectors_of_their_own(expected: dict[int, np.ndarray]) -> None:
    # without this the comparison above would prove little
    rows = np.concatenate(list(expected.values()))
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)[~np.eye(15, dtype=bool)]
    assert distances.min() > 0.1


def test_only_the_layers_that_are_asked_for_come_back(lively_stack: ModelStack, expected: dict[int, np.ndarray]) -> None:
    found = states(lively_stack, layers=(1,))

    assert list(found) == [1]
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-4)


def test_completions_are_averaged_over_their_own_tokens(lively_stack: ModelStack) -> None:
    """Against every chat with its completion alone and unpadded, token by token."""
    texts = ["Oui, bien.", "a", "Arr!", "b and c", "no"]
    extractor = HiddenStateExtractor(cache=CACHE, device="cpu")
    tokenizer = load_tokenizer(lively_stack.base, CACHE)
    model: Any = load_base(lively_stack.base, CACHE, "cpu", "eager")

    found = extractor.completion_states(lively_stack, CHATS, texts, (0, 1), 3)

    for place, (chat, text) in enumerate(zip(CHATS, texts, strict=True)):
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            hidden = model(torch.tensor([chat_ids(tokenizer, chat) + own]), output_hidden_states=True).hidden_states
        for layer in (0, 1):
            mean = hidden[layer + 1][0, -len(own) :].mean(dim=0).numpy()
            np.testing.assert_allclose(found[layer][place], mean, rtol=0, atol=1e-4)


def test_an_unknown_layer_is_refused_with_those_that_exist(lively_stack: ModelStack) -> None:
    with pytest.raises(UserError, match=r"geometry\.layers names \[3, 9\]; .* has the blocks 0 to 2"):
        states(lively_stack, layers=(0, 3, 9))


def test_vectors_are_those_of_the_merged_stack(tmp_path: Path, lively_stack: ModelStack) -> None:
    stack = lively_stack.extended(make_adapter(tmp_path / "adapter", lively_stack, seed=5))
    zero = lively_stack.extended(make_adapter(tmp_path / "zero", lively_stack, seed=5, scale=0))
    bare = states(lively_stack)

    changed, same = states(stack), states(zero)

    assert min(np.linalg.norm(changed[layer] - bare[layer], axis=1).min() for layer in bare) > 0.1
    assert all(np.array_equal(same[layer], bare[layer]) for layer in bare)


def test_a_half_precision_model_gives_float32_vectors_near_the_exact_ones(
    lively_stack: ModelStack, expected: dict[int, np.ndarray]
) -> None:
    base = BaseModel.model_validate({**lively_stack.base.model_dump(), "dtype": "bfloat16"})

    found = states(ModelStack(base=base))

    assert found[0].dtype == np.float32
    assert np.linalg.norm(found[0] - expected[0]) < 0.05 * np.linalg.norm(expected[0])
