"""A family's settings, base model by base model."""

from typing import Generic, TypeVar

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import Frozen
from persona_leakage.domain.models import BaseModel

S = TypeVar("S", bound=Frozen)


class Variant(Frozen, Generic[S]):
    """One base model, and the family's settings with what differs for it."""

    base_model: BaseModel
    settings: S


class Variants(Frozen, Generic[S]):
    """Every base model that `models.yml` names: model → base model and settings."""

    models: dict[str, Variant[S]]

    def of(self, model: str) -> Variant[S]:
        """Find a model by its name.

        Raises:
            UserError: there is none.
        """
        if model not in self.models:
            raise UserError(f"there is no model '{model}'; known: {', '.join(self.models)}; name it in conf/<env>/models.yml")
        return self.models[model]
