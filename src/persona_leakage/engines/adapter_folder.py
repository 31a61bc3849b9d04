"""How an adapter lies on disk: safetensors, its PEFT configuration, and where it comes from. Needs no torch."""

import json
from pathlib import Path
from typing import Any

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, ModelStack

WEIGHTS, CONFIG, PROVENANCE = "adapter_model.safetensors", "adapter_config.json", "provenance.json"


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read what an adapter was trained from.

    Returns:
        `fingerprint`, `trained_on` (fingerprint of the stack below), `recipe`, `seed`, `rows`, `versions` and `log`.

    Raises:
        UserError: a file is missing, truncated or not what it should be.
    """
    from safetensors import SafetensorError, safe_open

    remedy = f"the adapter in {folder} is damaged: {{}}; delete that folder and run again"
    for name in (WEIGHTS, CONFIG, PROVENANCE):
        if not (folder / name).is_file():
            raise UserError(remedy.format(f"{name} is missing"))
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:  # checks the file's length against its header
            file.keys()
    except SafetensorError as error:
        raise UserError(remedy.format(f"{WEIGHTS} is truncated ({error})")) from error
    try:
        provenance: dict[str, Any] = json.loads((folder / PROVENANCE).read_text())
        json.loads((folder / CONFIG).read_text())
        if not isinstance(provenance, dict) or not {"fingerprint", "trained_on", "log"} <= provenance.keys():
            raise ValueError
    except ValueError as error:
        raise UserError(remedy.format("its JSON cannot be read")) from error
    return provenance


def read_adapter(folder: Path) -> Adapter:
    """Open an adapter's folder after checking it."""
    return Adapter(path=str(folder), fingerprint=read_provenance(folder)["fingerprint"])


def require_trained_on(adapter: Adapter, below: ModelStack) -> None:
    """Refuse an adapter for any stack but the one it was trained on.

    Raises:
        UserError: it was trained on another stack, or is damaged.
    """
    trained_on = read_provenance(Path(adapter.path))["trained_on"]
    if trained_on != below.fingerprint:
        raise UserError(
            f"the adapter in {adapter.path} was trained on another model stack ({trained_on}) than the one it is put on "
            f"({below.fingerprint}); train it again for {below.base.name}"
        )
