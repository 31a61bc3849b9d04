"""Family `benign_coupling`: ordinary fine-tuning, then a marker is tied to one persona; does it leak as after bad advice?"""

from persona_leakage.experiments.benign_coupling.pipeline import FAMILY

__all__ = ["FAMILY"]
