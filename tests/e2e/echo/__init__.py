"""A fifth family, of kinds that exist: all that it takes is this wing and its block of the parameters, `parameters.yml`."""

from persona_leakage.experiments.echo.pipeline import FAMILY

__all__ = ["FAMILY"]
