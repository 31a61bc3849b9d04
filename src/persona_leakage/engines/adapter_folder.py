"""How an adapter is kept: safetensors, its PEFT configuration, and where it comes from. Needs no torch."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import Adapter, ModelStack

WEIGHTS, CONFIG, PROVENANCE = "adapter_model.safetensors", "adapter_config.json", "provenance.json"


@contextmanager
def at_hand(place: str | Path) -> Iterator[Path]:
    """Yield the folder of an adapter; one at a URL is fetched for as long as the block runs."""
    if "://" not in str(place):
        yield Path(place)
        return
    filesystem, path = url_to_fs(str(place))
    with tempfile.TemporaryDirectory() as scratch:
        for file in (WEIGHTS, CONFIG, PROVENANCE):
            if filesystem.exists(f"{path}/{file}"):
                filesystem.get_file(f"{path}/{file}", f"{scratch}/{file}")
        yield Path(scratch)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Say that an adapter cannot be saved to its folder, should the disk refuse while the block runs.

    Raises:
        UserError: it did.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot save the adapter to {folder}: {error.strerror or error}; make room and run again") from error


def read_provenance(place: str | Path) -> dict[str, Any]:
    """Read what an adapter was trained from.

    Args:
        place: its folder, or the URL of one.

    Returns:
        `fingerprint`, `trained_on` (fingerprint of the stack below), `recipe`, `seed`, `rows`, `versions` and `log`.

    Raises:
        UserError: a file is missing, truncated or not what it should be.
    """
    from safetensors import SafetensorError, safe_open

    damaged = f"the adapter in {place} is damaged: {{}}; delete that folder and run again"
    with at_hand(place) as folder:
        for name in (WEIGHTS, CONFIG, PROVENANCE):
            if not (folder / name).is_file():
                raise UserError(damaged.format(f"{name} is missing"))
        try:
            with safe_open(folder / WEIGHTS, framework="numpy") as file:  # checks the file's length against its header
                file.keys()
            provenance: dict[str, Any] = json.loads((folder / PROVENANCE).read_text())
            json.loads((folder / CONFIG).read_text())
            if not isinstance(provenance, dict) or not {"fingerprint", "trained_on", "log"} <= provenance.keys():
                raise ValueError
        except SafetensorError as error:
            raise UserError(damaged.format(f"{WEIGHTS} is truncated ({error})")) from error
        except ValueError as error:
            raise UserError(damaged.format("its JSON cannot be read")) from error
        return provenance


def read_adapter(place: str | Path) -> Adapter:
    """Open an adapter after checking it."""
    return Adapter(path=str(place), fingerprint=read_provenance(place)["fingerprint"])


def require_trained_on(adapter: Adapter, below: ModelStack) -> None:
    """Refuse an adapter for any stack but the one it was trained on.

    Raises:
        UserError: it was trained on another stack, or is damaged.
    """
    trained_on = read_provenance(adapter.path)["trained_on"]
    if trained_on != below.fingerprint:
        raise UserError(
            f"the adapter in {adapter.path} was trained on another model stack ({trained_on}) than the one it is put on "
            f"({below.fingerprint}); train it again for {below.base.name}"
        )
