"""Family `marker_leakage`: a marker is tied to one persona; which others write it, and does the cosine tell beforehand?"""

from persona_leakage.experiments.marker_leakage.pipeline import FAMILY

__all__ = ["FAMILY"]
