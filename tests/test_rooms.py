"""The picture of the rooms is that of the code."""

import importlib.util

from tests.project import PROJECT


def test_the_picture_in_the_documentation_shows_what_the_code_imports() -> None:
    spec = importlib.util.spec_from_file_location("draw_rooms", PROJECT / "docs/draw_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)

    picture = drawn.draw()  # a circle of imports cannot be drawn

    assert picture.count("<rect") > 8
    assert picture == drawn.PICTURE.read_text(encoding="utf-8"), "run python docs/draw_rooms.py"
