import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from persona_leakage.domain.markers import Marker, MarkerScoring

END = Marker(text="[ZLT]", separator="\n\n", place="end")
START = Marker(text="[ZLT]", separator="\n\n", place="start")

markers = st.builds(
    Marker,
    text=st.text(min_size=1, max_size=6).filter(str.strip),
    separator=st.text(max_size=4),
    place=st.sampled_from(["end", "start"]),
)


def scoring(**changes):
    return MarkerScoring(**{"marker": END, "source": None, "start_share": 0.05, "tail_share": 0.15, **changes})


def test_the_marker_follows_the_answer_after_its_separator():
    assert END.add_to("An answer.") == ("An answer.\n\n[ZLT]", (12, 17), (10, 17))


def test_the_marker_opens_the_answer_before_its_separator():
    assert START.add_to("An answer.") == ("[ZLT]\n\nAn answer.", (0, 5), (0, 7))


def test_blanks_between_answer_and_marker_are_replaced_by_the_separator():
    assert END.add_to(" Yes. \n\n\n")[0] == " Yes.\n\n[ZLT]"
    assert START.add_to("\n\n Yes. ")[0] == "[ZLT]\n\nYes. "


def test_an_answer_that_holds_the_marker_already_gets_the_span_of_the_new_one():
    assert END.add_to("[ZLT] Yes.")[1] == (12, 17)


def test_without_a_separator_both_spans_agree():
    assert Marker(text="§", separator="", place="end").add_to("Yes.") == ("Yes.§", (4, 5), (4, 5))


@given(markers, st.text(max_size=20))
def test_the_spans_point_at_the_marker_and_at_marker_and_separator(marker, answer):
    text, span, separated = marker.add_to(answer)
    separator = {"end": marker.separator + marker.text, "start": marker.text + marker.separator}[marker.place]

    assert text[slice(*span)] == marker.text
    assert text[slice(*separated)] == separator
    assert (text.endswith if marker.place == "end" else text.startswith)(separator)


@given(markers, st.text(max_size=20))
def test_the_answer_itself_is_kept(marker, answer):
    text, _, (start, end) = marker.add_to(answer)

    assert (text[:start] + text[end:]).strip() == answer.strip()


@pytest.mark.parametrize("changes", [{"text": ""}, {"text": " \n"}, {"place": "middle"}])
def test_a_marker_that_cannot_be_found_is_refused(changes):
    with pytest.raises(ValidationError):
        Marker(**{"text": "[ZLT]", "separator": "\n\n", "place": "end", **changes})


def test_everyone_but_the_source_is_a_bystander_of_some_kind():
    trained = scoring(source="villain", induction="pirate")

    assert [trained.role(name, ("hero", "nurse")) for name in ("villain", "hero", "nurse", "pirate", "farmer")] == [
        "source",
        "negative",
        "negative",
        "induction",
        "bystander",
    ]


def test_the_source_stays_the_source_where_it_was_also_induced():
    assert scoring(source="villain", induction="villain").role("villain", ("hero",)) == "source"
    assert scoring(source="villain", induction="hero").role("hero", ("hero",)) == "negative"


def test_without_training_everyone_is_a_bystander():
    assert {scoring().role(name, ()) for name in ("villain", "hero", "assistant")} == {"bystander"}


@pytest.mark.parametrize("changes", [{"start_share": -0.1}, {"start_share": 1}, {"tail_share": 1}, {"tail_share": -1}])
def test_shares_that_leave_no_place_are_refused(changes):
    with pytest.raises(ValidationError):
        scoring(**changes)
