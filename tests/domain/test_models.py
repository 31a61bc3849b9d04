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
