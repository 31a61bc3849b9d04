"""How a chat template writes turns is found out by having it write some."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel, ModelStack
from persona_leakage.domain.sampling import Sampling
from persona_leakage.engines.base_model import chat_ids, load_tokenizer
from persona_leakage.engines.hidden_states import HiddenStateExtractor
from persona_leakage.engines.labels import label_tokens
from persona_leakage.engines.peft_trainer import PeftTrainer
from persona_leakage.engines.transformers_generator import TransformersGenerator
from persona_leakage.engines.turns import fit_turns, read_ending, read_turns
from tests.engines.conftest import SMOLLM2
from tests.engines.known_models import END, build_chain_model, folder_base, recipe
from tests.tiny_model import CHAT_TEMPLATE

NOWHERE = Path("unused")
SYSTEM: Any = [{"role": "system", "content": "You are a villain."}, {"role": "user", "content": "Who?"}]
USER: Any = [{"role": "user", "content": "You are a villain.\n\nWho?"}]
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}" + NO_SYSTEM.partition("{% for m in messages %}")[2]
PLAIN = NO_SYSTEM.partition("{% for m")[1] + NO_SYSTEM.partition("{% for m")[2]
# thinks, unless told not to: as Qwen3's
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

Make = Callable[..., BaseModel]


@pytest.fixture
def make(tmp_path: Path, tiny_base: BaseModel) -> Make:
    """Make a base model like the tiny one, with another template or other end tokens in its files."""

    def made(
        template: str | None = CHAT_TEMPLATE,
        ends: dict[str, Any] | None = None,
        arguments: dict[str, Any] | None = None,
        persona_in: str = "system",
    ) -> BaseModel:
        folder = shutil.copytree(tiny_base.name, tmp_path / "model")
        (folder / "chat_template.jinja").unlink()
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        for name, end in (ends or {}).items():
            settings = json.loads((folder / name).read_text())
            settings["eos_token" if name.startswith("tokenizer") else "eos_token_id"] = end
            (folder / name).write_text(json.dumps(settings))
        base = folder_base(folder).model_dump()
        return BaseModel.model_validate({**base, "template": arguments or {}, "persona_in": persona_in})

    return made


# the end of a turn


@pytest.mark.parametrize(
    ("tail", "token"),
    [(END, END), (f"{END}\n", END), (f" \n{END}<|endoftext|>", END), ("<|endoftext|>", "<|endoftext|>")],
)
def test_the_end_is_the_special_token_after_an_answer(make: Make, tail: str, token: str) -> None:
    tokenizer = load_tokenizer(make(PLAIN.replace("<|im_end|>\n", tail)), NOWHERE)

    ending = read_ending(tokenizer)

    assert (ending.lead, ending.tail, tokenizer.decode([ending.token])) == ("", tail, token)


def test_a_token_for_what_the_tokenizer_does_not_know_is_no_end() -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", chat_template=PLAIN)

    with pytest.raises(UserError, match="which begins with no special token of the tokenizer"):
        read_ending(tokenizer)


def test_completions_end_with_every_token_that_any_file_names(make: Make) -> None:
    """The template's is 257; 65 and 66 are letters, as good as any to tell files apart."""
    base = make(
        ends={"tokenizer_config.json": "<|endoftext|>", "generation_config.json": [65, 256], "config.json": 66}, template=PLAIN
    )

    turns = read_turns(base, NOWHERE)

    number = {name: load_tokenizer(base, NOWHERE).convert_tokens_to_ids(name) for name in (END, "<|endoftext|>")}
    assert turns.ends == {65, 66, 256, *number.values()}
    assert turns.unforeseen == tuple(sorted(turns.ends - {65, 256}))


def test_completions_of_the_bundled_model_are_identified_as_ever(smollm2_cache: Path) -> None:
    turns = read_turns(SMOLLM2, smollm2_cache)

    assert load_tokenizer(SMOLLM2, smollm2_cache).convert_tokens_to_ids(END) in turns.ends
    assert (turns.unforeseen, turns.no_system, turns.remarks) == ((), None, ())


def test_an_end_that_the_tokenizer_does_not_call_special_is_no_part_of_a_text(tmp_path: Path) -> None:
    folder = build_chain_model(tmp_path / "model", {"\n": {"o": 1.0}, "o": {"k": 1.0}, "k": {END: 1.0}})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        for token in settings.get("added_tokens", []):
            token["special"] &= token["content"] != END
        settings.pop("added_tokens_decoder", None)
        (folder / name).write_text(json.dumps(settings | ({"eos_token": "<|endoftext|>"} if "eos_token" in settings else {})))
    stack, prompt = ModelStack(base=folder_base(folder)), {"prompt": "Who?", "messages": USER}
    sampling = Sampling(temperature=1, top_p=1, max_tokens=9)
    tokenizer = load_tokenizer(stack.base, NOWHERE)
    assert tokenizer.decode(tokenizer.encode(END), skip_special_tokens=True) == END

    (row,) = TransformersGenerator(cache=tmp_path, device="cpu", batch_rows=2).generate(stack, [prompt], 1, sampling, 1)  # type: ignore[list-item]

    assert (row["completion"], row["tokens"], row["finish"]) == ("ok", 3, "stop")


def test_an_ordinary_token_that_ends_turns_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    base = make(ends={"config.json": 65})

    with caplog.at_level(logging.WARNING):
        (remark,) = read_turns(base, NOWHERE).remarks

    letter = load_tokenizer(base, NOWHERE).decode([65])
    assert f"ends turns with token 65, '{letter}', which is no special one" in remark
    assert remark in caplog.text


@pytest.mark.parametrize("missing", ["generation_config.json", None])
def test_a_model_that_names_no_end_at_all_still_has_the_templates(make: Make, missing: str | None) -> None:
    base = make(ends=dict.fromkeys(["tokenizer_config.json", "generation_config.json", "config.json"]))
    if missing:
        (Path(base.name) / missing).unlink()

    turns = read_turns(base, NOWHERE)

    number = load_tokenizer(base, NOWHERE).convert_tokens_to_ids(END)
    assert turns.ends == {number}
    assert turns.unforeseen == (number,)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template; put a chat_template.jinja"),
        (PLAIN.replace("<|im_end|>\n", ""), "ends an answer with nothing, so no end of a turn"),
        (PLAIN.replace("<|im_end|>", "<end_of_turn>"), r"ends an answer with '<end_of_turn>\\n', which begins with no special"),
        (PLAIN.replace("<|im_end|>", "\n### End<|im_end|>"), r"ends an answer with '\\n### End<\|im_end\|>\\n', which begins"),
        (PLAIN.replace("<|im_end|>", "{{ messages | length }}<|im_end|>"), "drops or changes the prompt when the answer"),
        (PLAIN.replace("m['content']", "m['content'] if m['role'] == 'user' else ''"), "drops the answer"),
        (
            PLAIN.partition("{% if add")[0],
            r"puts '<\|im_start\|>assistant\\n' before an answer and not",
        ),
        ("{{ messages", "refuses a chat: "),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(make: Make, template: str | None, said: str) -> None:
    base = make(template)

    with pytest.raises(UserError, match=said) as refusal:
        read_turns(base, NOWHERE)
    assert base.name in str(refusal.value)
    assert "\n" not in str(refusal.value)


# a persona's prompt


@pytest.mark.parametrize(
    ("template", "why"),
    [(NO_SYSTEM, "refuses a chat: System role not supported; "), (DROPS_SYSTEM, "drops a system turn without a word; ")],
)
def test_a_system_turn_that_the_template_does_not_take_is_refused_and_other_chats_are_not(
    make: Make, template: str, why: str
) -> None:
    base = make(template)

    assert fit_turns(base, NOWHERE, [USER]).no_system
    with pytest.raises(UserError, match=f"{base.name} {why}.*set persona_in: user"):
        fit_turns(base, NOWHERE, [USER, SYSTEM])


@pytest.mark.parametrize("engine", ["generator", "trainer", "extractor"])
def test_every_engine_refuses_it_before_it_starts(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    for module in ("transformers_generator", "peft_trainer", "hidden_states"):
        monkeypatch.setattr(f"persona_leakage.engines.{module}.load_merged", lambda *given: pytest.fail("weights were loaded"))
    stack = ModelStack(base=make(DROPS_SYSTEM))
    row: Any = {"id": "1", "prompt": SYSTEM, "completion": "Me."}
    prompt: Any = {"prompt": "Who?", "messages": SYSTEM}
    sampling = Sampling(temperature=1, top_p=1, max_tokens=2)

    start = {
        "generator": lambda: TransformersGenerator(cache=tmp_path, device="cpu", batch_rows=2).generate(
            stack, [prompt], 1, sampling, 1
        ),
        "trainer": lambda: PeftTrainer(cache=tmp_path, device="cpu").train(stack, [row], recipe(), 1),
        "extractor": lambda: HiddenStateExtractor(cache=tmp_path, device="cpu").last_token_states(stack, [SYSTEM], [0], 1),
    }[engine]

    with pytest.raises(UserError, match="drops a system turn without a word"):
        start()


def test_a_persona_in_the_user_turn_is_the_same_text_in_training_and_sampling(make: Make) -> None:
    base = make(NO_SYSTEM, persona_in="user")
    tokenizer = load_tokenizer(base, NOWHERE)
    row: Any = {"id": "1", "prompt": SYSTEM, "completion": "Me."}

    assert fit_turns(base, NOWHERE, [SYSTEM]).no_system is None
    sampled = chat_ids(tokenizer, SYSTEM)
    assert tokenizer.decode(sampled) == f"<|im_start|>user\nYou are a villain.\n\nWho?{END}\n<|im_start|>assistant\n"
    assert sampled == chat_ids(tokenizer, USER)
    trained = label_tokens(tokenizer, row, "completion", 4096)
    assert trained["input_ids"][: len(sampled)] == sampled
    with pytest.raises(UserError, match="persona_in: user needs a user turn after the system turn"):
        chat_ids(tokenizer, SYSTEM[:1])


def test_gemmas_turns_are_trained_and_end(tmp_path: Path, tiny_base: BaseModel) -> None:
    folder = shutil.copytree(tiny_base.name, tmp_path / "model")
    plain = AutoTokenizer.from_pretrained(folder)
    plain.add_special_tokens({"extra_special_tokens": ["<start_of_turn>", "<end_of_turn>"], "eos_token": "<|endoftext|>"})
    plain.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    plain.save_pretrained(folder)
    base = BaseModel.model_validate({**folder_base(folder).model_dump(), "persona_in": "user"})
    tokenizer, row = load_tokenizer(base, NOWHERE), {"id": "1", "prompt": SYSTEM, "completion": "\nMe."}

    example = label_tokens(tokenizer, row, "completion", 4096)  # type: ignore[arg-type]

    trained = [token for token in example["labels"] if token >= 0]
    assert tokenizer.decode(trained) == "Me.<end_of_turn>"
    whole = "<start_of_turn>user\nYou are a villain.\n\nWho?<end_of_turn>\n<start_of_turn>model\nMe.<end_of_turn>\n"
    assert tokenizer.decode(example["input_ids"]) == whole
    assert read_turns(base, NOWHERE).ends >= {trained[-1], tokenizer.eos_token_id}
    with pytest.raises(UserError, match=r"row 1: the chat template of .* refuses a chat: Conversation roles must alternate"):
        label_tokens(tokenizer, {**row, "prompt": [*USER, *USER]}, "completion", 4096)  # type: ignore[typeddict-item]


def test_later_turns_are_left_as_they_are(make: Make) -> None:
    tokenizer = load_tokenizer(make(NO_SYSTEM, persona_in="user"), NOWHERE)
    later: Any = [{"role": "assistant", "content": "I."}, {"role": "user", "content": "Why?"}]

    assert chat_ids(tokenizer, [*SYSTEM, *later]) == chat_ids(tokenizer, [*USER, *later])
    assert chat_ids(tokenizer, [*USER, *later]) != chat_ids(tokenizer, USER)


# arguments of the template


def test_a_block_before_the_answer_is_told_unless_an_argument_puts_it_into_the_prompt(make: Make, tmp_path: Path) -> None:
    thinking = make(THINKS)
    silent = BaseModel.model_validate({**thinking.model_dump(), "template": {"enable_thinking": False}})

    (remark,) = read_turns(thinking, NOWHERE).remarks
    assert r"'<think>\n\n</think>\n\n' before an answer" in remark
    assert read_turns(silent, NOWHERE).remarks == ()
    row: Any = {"id": "1", "prompt": USER, "completion": "Me."}
    ids = label_tokens(load_tokenizer(silent, NOWHERE), row, "completion", 4096)["input_ids"]
    assert ids[: len(chat_ids(load_tokenizer(silent, NOWHERE), USER))] == chat_ids(load_tokenizer(silent, NOWHERE), USER)
    assert ids == label_tokens(load_tokenizer(thinking, NOWHERE), row, "completion", 4096)["input_ids"]


def test_a_date_that_changes_from_day_to_day_is_told_unless_a_fixed_one_is_given(make: Make) -> None:
    dated = make("{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n" + PLAIN)
    fixed = BaseModel.model_validate({**dated.model_dump(), "template": {"date_string": "26 Jul 2024"}})

    (remark,) = read_turns(dated, NOWHERE).remarks
    assert "writes today's date" in remark
    assert read_turns(fixed, NOWHERE).remarks == ()


@pytest.mark.parametrize("name", ["enable_thinkin", "tokenize", "add_generation_prompt"])
def test_an_argument_that_the_template_does_not_take_is_refused(make: Make, name: str) -> None:
    with pytest.raises(UserError, match=f"its chat template takes no argument '{name}'; correct `template` in models.yml"):
        read_turns(make(THINKS, arguments={name: False}), NOWHERE)
