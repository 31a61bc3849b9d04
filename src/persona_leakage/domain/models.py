"""Base models, adapters and the stacks they form."""

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from persona_leakage.domain.frozen import Frozen, fingerprint

CheckpointUnit = Literal["epochs", "steps"]


def _absent(value: object) -> bool:
    """Keep a key that a model does not have out of its fingerprints, which are as they were before there was such a key."""
    return value is None


class BaseModel(Frozen):
    """Where the base model's weights come from.

    Attributes:
        source: `hub` (a Hugging Face repository), `folder` (a local folder in the same layout) or `package`
            (a GGUF file inside an installed Python package, or in several).
        name: repository, folder or package name.
        revision: commit of the repository or version of the package; part of every fingerprint.
        parts: number of packages that the file is cut into, one piece a package; `name` and 1, 2, … are their names.
        sha256: digest of the whole file, which is checked before it is used.
        dtype: number format of the weights in memory.
        template: arguments of the chat template, such as `enable_thinking: false`, in training and sampling alike.
        persona_in: the turn that a persona's prompt stands in: `system`, or `user`, before the question and a blank line, for
            chat templates without a system turn.
        made_by: command that makes or installs a model that is not there, for the error that says so.
    """

    source: Literal["hub", "folder", "package"]
    name: str
    revision: str
    parts: PositiveInt | None = Field(default=None, exclude_if=_absent)
    sha256: str | None = Field(default=None, exclude_if=_absent, pattern="^[0-9a-f]{64}$")
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    template: tuple[tuple[str, bool | int | str], ...] = ()
    # not written where it is as ever, so that no model, plan or fingerprint becomes another by it
    persona_in: Literal["system", "user"] = Field(default="system", exclude_if=lambda turn: turn == "system")
    made_by: str | None = None

    @field_validator("template", mode="before")
    @classmethod
    def _pairs(cls, given: Any) -> Any:
        return tuple(sorted(given.items())) if isinstance(given, dict) else given

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the model's results; without template arguments as it was before there were any."""
        return self.model_dump(mode="json", exclude={"made_by"} | ({"template"} if not self.template else set()))

    @property
    def packages(self) -> tuple[str, ...]:
        """The Python packages that carry a model of the source `package`."""
        return (self.name,) if self.parts is None else tuple(f"{self.name}{part + 1}" for part in range(self.parts))

    @property
    def installed_by(self) -> str:
        """The command that installs these packages, whose own dependencies would be of no use here."""
        return self.made_by or f"pip install --no-deps {self._requirements}"

    @property
    def reinstalled_by(self) -> str:
        """The command that installs them anew."""
        return f"pip install --no-deps --force-reinstall {self._requirements}"

    @property
    def _requirements(self) -> str:
        return " ".join(f"{package}=={self.revision}" for package in self.packages)


class Adapter(Frozen):
    """LoRA weights on disk.

    Attributes:
        path: folder with `adapter_model.safetensors`, `adapter_config.json`, `provenance.json` and a README.
        fingerprint: identifies what the adapter was trained from: stack below, recipe, seed and rows.
    """

    path: str
    fingerprint: str


def checkpoint_name(when: float | None, unit: CheckpointUnit = "epochs") -> str:
    """Name the adapter after so many epochs or steps; None means the last one."""
    if when is None:
        return "final"
    if unit == "steps":
        return f"step_{when:05d}"
    return f"epoch_{when:02d}" if isinstance(when, int) else f"epoch_{int(when):02d}{f'{when % 1:.6g}'[1:]}"


class ModelStack(Frozen):
    """A base model and the adapters that are merged into it, in order. No adapter is the baseline."""

    base: BaseModel
    adapters: tuple[Adapter, ...] = ()

    def extended(self, adapter: Adapter) -> "ModelStack":
        """Return the stack with one more adapter on top."""
        return ModelStack(base=self.base, adapters=(*self.adapters, adapter))

    @property
    def fingerprint(self) -> str:
        """Identify the stack by what it is made of, wherever its files lie."""
        return fingerprint(self.base.identity, [adapter.fingerprint for adapter in self.adapters])
