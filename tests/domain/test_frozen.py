import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PositiveInt, ValidationError

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen, fingerprint


class Inner(Frozen):
    rank: PositiveInt
    note: str = ""


class Outer(Frozen):
    inner: Inner
    share: float


GOOD = {"inner": {"rank": 4}, "share": 0.5}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "nan"])
def test_a_number_that_json_cannot_hold_is_refused(value):
    with pytest.raises(UserError, match=r"^it\.share: Input should be a finite number"):
        Outer.checked({**GOOD, "share": value}, "it")
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"share": float(value)})


mappings = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), min_size=1, max_size=5)


def test_fingerprint_is_the_start_of_the_sha256_of_canonical_json():
    assert fingerprint({"b": [2, "é"], "a": 1}) == "8ecfabbc5d4ede0b"  # printf '[{"a":1,"b":[2,"é"]}]' | sha256sum
    assert fingerprint("fr_it", 42) == "2d19c7cd6c651267"


@given(mappings)
def test_fingerprint_ignores_the_order_of_keys(mapping):
    assert fingerprint(dict(reversed(mapping.items()))) == fingerprint(mapping)


@given(mappings, st.data())
def test_fingerprint_changes_with_any_value(mapping, data):
    key = data.draw(st.sampled_from(sorted(mapping)))

    assert fingerprint({**mapping, key: [mapping[key]]}) != fingerprint(mapping)


def test_fingerprint_changes_with_the_order_of_a_list():
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_fingerprint_tells_one_part_from_two():
    assert fingerprint("a", "b") != fingerprint(["a", "b"])


def test_fingerprint_of_a_value_equals_that_of_its_json():
    assert fingerprint(Inner(rank=4)) == fingerprint({"note": "", "rank": 4})


def test_values_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Inner(rank=4).rank = 8


def test_good_value_is_accepted():
    assert Outer.checked(GOOD, "outer") == Outer(inner=Inner(rank=4, note=""), share=0.5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({**GOOD, "inner": {"rank": -1}}, "outer.inner.rank: Input should be greater than 0 (got -1)"),
        (
            {**GOOD, "inner": {"rank": 4, "rnak": 8}},
            "outer.inner.rnak: there is no such key; correct its spelling or remove it",
        ),
        ({"inner": {"rank": 4}}, "outer.share: Field required"),
        (
            {"inner": {"rank": 0}, "shaer": 1, "share": 0.5},
            "outer.inner.rank: Input should be greater than 0 (got 0); "
            "outer.shaer: there is no such key; correct its spelling or remove it",
        ),
    ],
)
def test_every_problem_is_said_in_one_line(value, message):
    with pytest.raises(UserError) as error:
        Outer.checked(value, "outer")

    assert str(error.value) == message


def test_a_block_and_a_list_are_not_dumped():
    for share in ({"a": 1}, [1, 2]):
        with pytest.raises(UserError) as error:
            Outer.checked({**GOOD, "share": share}, "outer")
        assert str(error.value) == "outer.share: Input should be a valid number"


def test_a_value_of_several_lines_is_quoted_in_one():
    with pytest.raises(UserError) as error:
        Outer.checked({**GOOD, "share": "a\nb"}, "outer")

    assert str(error.value).endswith(r"(got 'a\nb')")
    assert "\n" not in str(error.value)
