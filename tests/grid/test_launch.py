"""What the process of a point is told."""

import json
import os
import sys

from persona_leakage.domain.points import Address
from persona_leakage.grid.launch import Work
from persona_leakage.grid.points import Point

POINT = Point(
    "convergence", Address(model="tiny", condition="001", seed=7, checkpoint=0), None, None, "folder", "missing", None, None
)


def test_parameters_are_handed_to_a_process_as_data() -> None:
    """Two overrides under one key, nothing, text that looks like a number, and one that is."""
    params = {
        "convergence": {"evaluation": {"samples": 1, "questions": 2}, "early_checkpoint": None, "note": "007"},
        "condition": "villain",
        "seed": 1,
        "dose": "matched",
    }

    *command, given = Work(None, "test", params).command(POINT)

    assert command == [sys.executable, "-m", "persona_leakage.grid.compute", str(os.getpid())]
    assert json.loads(given) == {
        "family": "convergence",
        "env": "test",
        "params": {**params, "model": "tiny", "condition": "001", "seed": 7, "checkpoint": 0, "dose": "final"},
    }
