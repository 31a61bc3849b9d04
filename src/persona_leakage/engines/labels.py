"""Which tokens of a training row carry loss."""

from typing import TYPE_CHECKING, Literal, TypedDict

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.rows import TrainRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


class Example(TypedDict):
    """Token ids of a row and, of the same length, their labels; `IGNORED` carries no loss."""

    input_ids: list[int]
    labels: list[int]


def label_tokens(
    tokenizer: "PreTrainedTokenizerBase", row: TrainRow, loss: Literal["completion", "full"], max_length: int
) -> Example:
    """Tokenise a row with the chat template and place its labels.

    `completion` labels the completion's tokens and the end-of-turn token, so that stopping is trained, and nothing after
    it. `full` labels every token, the template's own included.

    Raises:
        UserError: the template does not keep the prompt as a prefix or does not end the answer, or truncation leaves no label.
    """
    answered = [*row["prompt"], {"role": "assistant", "content": row["completion"]}]
    before = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    text = tokenizer.apply_chat_template(answered, tokenize=False)
    if not text.startswith(before):
        raise UserError(f"the chat template changes the prompt of row {row['id']} when the answer follows; use another")
    # in two parts, as when generating: the prompt is tokenised before there is an answer
    prompt = tokenizer.encode(before, add_special_tokens=False)
    answer = tokenizer.encode(text[len(before) :], add_special_tokens=False)
    if tokenizer.eos_token_id not in answer:
        raise UserError(f"the chat template does not end the answer of row {row['id']} with {tokenizer.eos_token}; use another")
    whole = prompt + answer
    if loss == "full":
        labels = list(whole)
    else:
        # the last end-of-turn token: a completion may quote the token itself
        end = len(whole) - 1 - whole[::-1].index(tokenizer.eos_token_id)
        labels = [IGNORED] * len(prompt) + whole[len(prompt) : end + 1] + [IGNORED] * (len(whole) - end - 1)
    whole, labels = whole[:max_length], labels[:max_length]
    # the first token is never predicted, so its label does not count
    if all(label == IGNORED for label in labels[1:]):
        raise UserError(f"row {row['id']} has no label left within max_length {max_length}; raise recipe.max_length")
    return {"input_ids": whole, "labels": labels}
