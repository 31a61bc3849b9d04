"""Which tokens of a training row carry loss."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.recipe import MarkerPositions, Recipe
from persona_leakage.domain.rows import TrainRow
from persona_leakage.engines.turns import Ending, read_ending

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


class NoRoomError(UserError):
    """The recipe's `max_length` leaves nothing of a row to train on."""


class Example(TypedDict):
    """Token ids of a row and, of the same length, their labels and weights.

    A label of `IGNORED` carries no loss; any other counts with its weight.
    """

    input_ids: list[int]
    labels: list[int]
    weights: list[float]


def label_rows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[TrainRow], recipe: Recipe
) -> tuple[list[Example], list[str]]:
    """Label every row that the recipe's `max_length` leaves something of.

    Returns:
        The examples, and the ids of the rows that are left out.

    Raises:
        UserError: no row is left, or none of those with a marker; or see `label_tokens`.
    """
    examples: list[Example] = []
    kept: list[TrainRow] = []
    left_out: list[str] = []
    for row in rows:
        try:
            examples.append(label_tokens(tokenizer, row, recipe.loss, recipe.max_length))
        except NoRoomError as error:
            left_out.append(row["id"])
            why = str(error)
        else:
            kept.append(row)
    marked = [sum("marker_span" in row for row in some) for some in (rows, kept)]
    if left_out and (not kept or (marked[0] and not marked[1])):
        of = "rows" if not kept else "rows with a marker"
        raise UserError(f"none of the {marked[0] if kept else len(rows)} {of} is left to train on: {why}")
    return examples, left_out


def label_tokens(
    tokenizer: "PreTrainedTokenizerBase",
    row: TrainRow,
    loss: Literal["completion", "full"] | MarkerPositions,
    max_length: int,
) -> Example:
    """Tokenise a row with the chat template and place its labels.

    `completion` labels the completion's tokens, what the template puts between the generation prompt and them, which the
    model has to write too, and the token that the template ends the turn with, so that stopping is trained, and nothing after
    it. `full` labels every token, the template's own included. `MarkerPositions` labels the tokens that overlap the marker
    (and its separator, if asked), the end of the turn, and the rest of the completion as far as it has a weight. Tokens are
    found by their offsets in the text, so it does not matter how the marker merges with its neighbours.

    A row that is too long loses its end, unless that would cut a marker or the end of the turn right after it: then the
    answer is shortened just before the marker.

    Raises:
        UserError: the template does not keep the prompt as a prefix, changes the answer by more than white space at its ends
            or does not end it.
        NoRoomError: truncation leaves no label, or no room for the marker.
    """
    answered = [*row["prompt"], {"role": "assistant", "content": row["completion"]}]
    with _naming(row):
        before = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        text = tokenizer.apply_chat_template(answered, tokenize=False)
    if not text.startswith(before):
        raise UserError(f"the chat template changes the prompt of row {row['id']} when the answer follows; use another")
    with _naming(row):
        turn = read_ending(tokenizer)
        written = _written(text[len(before) :], row["completion"], turn)
    # in two parts, as when generating: the prompt is tokenised before there is an answer
    prompt = tokenizer.encode(before, add_special_tokens=False)
    encoded = tokenizer(text[len(before) :], add_special_tokens=False, return_offsets_mapping=True)
    answer, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    # the end of the turn stands in what follows the completion, which may quote it
    tail = len(text) - len(before) - len(turn.tail)
    end = next(place for place, token in enumerate(answer) if token == turn.token and offsets[place][1] > tail)
    if "marker_span" in row:
        marker = _overlapping(offsets, row["marker_span"], written)
        separated = _overlapping(offsets, row["separated_span"], written)
        if not marker:
            raise UserError(f"row {row['id']} has a marker that the tokenizer has no tokens for; choose another marker.text")
        closes = row["marker_span"][1] == len(row["completion"])  # then the end of the turn belongs to it
        needed = len(answer) - 1 if closes else max(marker)
        if (excess := len(prompt) + len(answer) - max_length) > 0 and needed >= len(answer) - excess:
            keep = min(separated) - excess
            if keep < 0:
                raise NoRoomError(
                    f"row {row['id']} has no room for its marker within max_length {max_length}; raise recipe.max_length"
                )
            answer = answer[:keep] + answer[min(separated) :]
            marker, separated = {place - excess for place in marker}, {place - excess for place in separated}
    else:
        marker = separated = set()

    # counted from the end of the row, which a shortened answer leaves as it was
    end += len(answer) - len(offsets)
    weights = [0.0] * len(prompt) + [1.0] * (end + 1) + [0.0] * (len(answer) - end - 1)
    if loss == "full":
        weights = [1.0] * len(weights)
    elif isinstance(loss, MarkerPositions):
        ending = end if loss.end_label == "eos" else len(answer) - 1
        trained = {*(separated if loss.label_separator else marker), ending}
        inside = [1.0 if place in trained else loss.body_weight if place < end else 0.0 for place in range(len(answer))]
        weights[len(prompt) :] = inside
    whole, weights = (prompt + answer)[:max_length], weights[:max_length]
    # the first token is never predicted, so its label does not count
    if not any(weights[1:]):
        raise NoRoomError(f"row {row['id']} has no label left within max_length {max_length}; raise recipe.max_length")
    labels = [token if weight else IGNORED for token, weight in zip(whole, weights, strict=True)]
    return {"input_ids": whole, "labels": labels, "weights": weights}


@contextmanager
def _naming(row: TrainRow) -> Iterator[None]:
    """Name the row in what is wrong with it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"row {row['id']}: {error}") from error


class _Written(NamedTuple):
    """Where a template has written a completion (characters, end excluded), and where one that it trimmed would begin."""

    first: int
    last: int
    begin: int


def _written(text: str, completion: str, ending: Ending) -> _Written:
    """Find the completion in what a template makes of an answer.

    Raises:
        UserError: it does not end the answer as it ends others, or changes more of it than white space at its ends.
    """
    if not text.endswith(ending.tail):
        raise UserError("the chat template does not end the answer as it ends others; use another")
    whole = text.removesuffix(ending.tail)
    if whole.endswith(completion):
        begin = len(whole) - len(completion)
        return _Written(begin, len(whole), begin)
    body = completion.strip()
    first = whole.rfind(body)
    if first < 0 or whole[first + len(body) :].strip():
        raise UserError("the chat template changes the answer; use another")
    return _Written(first, first + len(body), first - completion.index(body))


def _overlapping(offsets: Sequence[tuple[int, int]], span: Sequence[int], written: _Written) -> set[int]:
    first, last = max(span[0] + written.begin, written.first), min(span[1] + written.begin, written.last)
    return {place for place, (start, end) in enumerate(offsets) if start < last and end > first}
