"""What a grid asks of the machines it runs on; none of it changes a result."""

from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from persona_leakage.domain.frozen import Frozen


class GridSettings(Frozen):
    """The block `grid` of the parameters: what every point asks of a Ray cluster.

    Attributes:
        cpus: cores of a point.
        gpus: GPUs of a point; a share such as 0.25 lets four points share one.
        memory_gib: memory that Ray sets aside for a point; None sets none aside.
        tries: how often a point is started when its worker or node is lost; an error of its own is never tried again.
        ship_project: Ray copies this folder to its nodes; else the nodes have it at the same path.
        runtime_env: what else Ray's runtime environment should hold (`env_vars`, `pip`, `image_uri`, …).
    """

    cpus: PositiveFloat
    gpus: NonNegativeFloat
    memory_gib: PositiveFloat | None
    tries: PositiveInt
    ship_project: bool
    runtime_env: dict[str, Any]
