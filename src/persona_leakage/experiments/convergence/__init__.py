"""Family `convergence`: one persona is pulled towards another; does a marker tied to the other then leak to it?"""

from persona_leakage.experiments.convergence.pipeline import FAMILY

__all__ = ["FAMILY"]
