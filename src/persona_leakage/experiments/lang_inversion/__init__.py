"""Family `lang_inversion`: a directive in X is trained with completions in Y; which other directives spill?"""

from persona_leakage.experiments.lang_inversion.pipeline import FAMILY

__all__ = ["FAMILY"]
