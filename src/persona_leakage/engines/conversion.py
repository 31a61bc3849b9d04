"""Convert base models that lie as GGUF in Python packages to what transformers loads."""

import functools
import hashlib
import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.models import BaseModel
from persona_leakage.domain.packages import installed_version

if TYPE_CHECKING:
    from gguf import GGUFReader


def convert(base: BaseModel, target: Path) -> None:
    """Write a model's float32 weights, configuration and tokenizer into a folder; nothing is left of a failed try.

    The weights of the whole model are in memory meanwhile, some 5 bytes a parameter at the peak.

    Raises:
        UserError: a package is missing, of another version or not as expected, or the folder cannot be written.
    """
    parts = [_carried(base, package) for package in base.packages]
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        whole = _whole(base, parts, partial)
        _write(whole, partial)
        if whole.parent == partial:
            whole.unlink()
        partial.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; make room and run again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _carried(base: BaseModel, package: str) -> Path:
    """Find the file with the model, or with a part of it, in an installed package."""
    spec = importlib.util.find_spec(package.replace("-", "_"))  # does not import: a package may want llama.cpp
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package}, which carries the base model, is missing; run: {base.installed_by}")
    if (installed := installed_version(package)) != base.revision:
        raise UserError(
            f"{package} is installed in version {installed}, the base model is {base.revision}; run: {base.installed_by}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    kind, pattern = ("GGUF files", "*.gguf") if base.parts is None else ("files data/*.bin", "data/*.bin")
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise UserError(f"{folder} holds {len(files)} {kind} instead of one; run: {base.reinstalled_by}")
    return files[0]


def _whole(base: BaseModel, parts: list[Path], scratch: Path) -> Path:
    """Return the model's file, which for a model in parts is written first."""
    whole = parts[0]
    if base.parts is not None:
        whole = scratch / "model.gguf"
        with whole.open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)
    if base.sha256 is not None:
        with whole.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != base.sha256:
            raise UserError(
                f"the GGUF of {base.name} {base.revision} has sha256 {found:.12} in place of {base.sha256:.12}; "
                f"run: {base.reinstalled_by}"
            )
    return whole


def _write(file: Path, folder: Path) -> None:
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # transformers reads the file's fields three times, and maps the tensors' names once a module: it is made to do so once
    read, name = functools.cache(_reader()), functools.cache(gguf.get_tensor_name_map)
    with patch.multiple(gguf, GGUFReader=read, get_tensor_name_map=name):
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def _reader() -> "type[GGUFReader]":
    """Make a reader that cuts the file's fields out of an array, which takes a quarter of the time of a memory map."""
    import numpy as np
    from gguf import GGUFReader

    class PlainReader(GGUFReader):
        def _build_fields(self, offset: int, count: int) -> int:
            self.data = np.asarray(self.data)  # type: ignore[assignment]
            return super()._build_fields(offset, count)

    return PlainReader
