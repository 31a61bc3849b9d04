import pytest

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, BaseModel, ModelStack

BASE = BaseModel(source="hub", name="Qwen/Qwen2.5-7B-Instruct", revision="a09a354")
ONE, OTHER = Adapter(path="one", fingerprint="1111"), Adapter(path="other", fingerprint="2222")


def test_a_stack_is_extended_on_top_and_left_as_it_was():
    stack = ModelStack(base=BASE, adapters=(ONE,))

    assert stack.extended(OTHER).adapters == (ONE, OTHER)
    assert stack.adapters == (ONE,)


def test_a_stack_is_identified_by_its_adapters_and_not_by_where_they_lie():
    moved = Adapter(path="elsewhere", fingerprint="1111")

    assert ModelStack(base=BASE, adapters=(moved,)).fingerprint == ModelStack(base=BASE, adapters=(ONE,)).fingerprint


def test_the_order_of_adapters_is_part_of_a_stack():
    assert ModelStack(base=BASE, adapters=(ONE, OTHER)).fingerprint != ModelStack(base=BASE, adapters=(OTHER, ONE)).fingerprint


def test_another_revision_is_another_stack():
    assert ModelStack(base=BASE.model_copy(update={"revision": "b"})).fingerprint != ModelStack(base=BASE).fingerprint


# template arguments


def with_template(template):
    return BaseModel.checked({**BASE.model_dump(exclude={"template"}), "template": template}, "base_model")


def test_template_arguments_are_written_as_a_block_and_known_in_one_order():
    model = with_template({"tools": "none", "enable_thinking": False, "depth": 2})

    assert model.template == (("depth", 2), ("enable_thinking", False), ("tools", "none"))
    assert dict(model.template) == {"enable_thinking": False, "tools": "none", "depth": 2}
    assert with_template({"depth": 2, "enable_thinking": False, "tools": "none"}) == model


def test_a_model_with_template_arguments_can_be_a_key_and_is_read_back_from_its_json():
    model = with_template({"enable_thinking": False})

    assert {model: 1}[with_template({"enable_thinking": False})] == 1
    assert BaseModel.model_validate(model.model_dump(mode="json")) == model
    assert BaseModel.model_validate_json(model.model_dump_json()) == model


def test_template_arguments_decide_results_and_none_at_all_leave_a_model_as_it_was():
    plain, thinking, silent = (with_template(one) for one in ({}, {"enable_thinking": True}, {"enable_thinking": False}))

    assert len({ModelStack(base=model).fingerprint for model in (plain, thinking, silent)}) == 3
    assert plain.identity == {"source": "hub", "name": BASE.name, "revision": BASE.revision, "dtype": "bfloat16"}
    assert ModelStack(base=plain).fingerprint == ModelStack(base=BASE).fingerprint


def test_where_a_persona_stands_decides_results_and_is_written_only_where_it_is_not_the_system_turn():
    moved = BaseModel.checked({**BASE.model_dump(), "persona_in": "user"}, "base_model")

    assert "persona_in" not in BASE.model_dump(mode="json")
    assert "persona_in" not in BASE.identity
    assert BaseModel.model_validate_json(moved.model_dump_json()) == moved
    assert ModelStack(base=moved).fingerprint != ModelStack(base=BASE).fingerprint
    with pytest.raises(UserError, match=r"^base_model\.persona_in: Input should be 'system' or 'user'"):
        BaseModel.checked({**BASE.model_dump(), "persona_in": "assistant"}, "base_model")


def test_what_makes_a_missing_model_is_no_part_of_it():
    made = BASE.model_copy(update={"made_by": "python -m somebody"})

    assert made.identity == BASE.identity
    assert ModelStack(base=made).fingerprint == ModelStack(base=BASE).fingerprint


@pytest.mark.parametrize("template", [{"enable_thinking": None}, {"tools": ["x"]}, {"tools": {"x": 1}}, "enable_thinking"])
def test_a_template_argument_that_is_no_plain_value_is_refused(template):
    with pytest.raises(UserError, match=r"^base_model\.template"):
        with_template(template)
