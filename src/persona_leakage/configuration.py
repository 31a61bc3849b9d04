"""Kedro's configuration, and in it every family's settings for every base model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader

from persona_leakage.domain.errors import UserError
from persona_leakage.experiments import FAMILIES
from persona_leakage.keys import LOCAL
from persona_leakage.machine import fast_dtype

CHATS = "chat_sources"  # entry of the catalog that has the chats which families name


class ModelConfigLoader(OmegaConfigLoader):
    """Adds to the parameters what the base models of `models.yml` make of them, and to credentials those of `conf/local`.

    The catalog has an entry more, `chat_sources`: the datasets that families name under `chats`.

    `variants` has, for every family and every model, the model itself and the family's block: `conf/base`, changed by the
    environment, then by what `models.yml` says differs for the model, and last by what is given at run time. The run's own
    model is also changed by `base_model`. What `dtype: auto` means is settled here, once for a run and all that it starts:
    `auto_dtype`, by default the format that this machine computes fastest in.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Load one kind of configuration; raise what `make_variants` and `collect_chats` do."""
        loaded = super().__getitem__(key)
        if key == "parameters" and "variants" not in loaded:
            dtypes = [spec.get("dtype") for spec in (*loaded["models"].values(), loaded["base_model"])]
            if "auto" in dtypes and loaded["auto_dtype"] is None:
                device = "cuda" if loaded["grid"]["gpus"] else self["globals"]["device"]
                loaded["auto_dtype"] = fast_dtype(device)
            loaded["variants"] = make_variants(loaded, self.runtime_params or {})
            self[key] = loaded  # hooks, context and commands ask again, and reading takes a second
        if key == "catalog" and CHATS not in loaded:
            loaded[CHATS] = collect_chats(self["parameters"]["variants"], loaded)
        if key == "credentials" and (local := Path(self.conf_source) / LOCAL).is_dir():
            loaded = _merge(loaded, self.load_and_merge_dir_config(str(local), self.config_patterns[key], key, set(), True))
        return loaded


def make_variants(parameters: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Merge families and models.

    Args:
        parameters: of base and environment, with those given at run time.
        given: those given at run time, which outweigh the model's.

    Returns:
        family → `models` → model → `base_model` and `settings`; see `domain.variants.Variants`.

    Raises:
        UserError: a model changes the settings of a family that does not exist.
    """
    families = [name for name in FAMILIES if name in parameters]
    variants: dict[str, dict[str, Any]] = {name: {"models": {}} for name in families}
    for model, spec in parameters["models"].items():
        changes = spec.get("settings") or {}
        if unknown := set(changes) - set(families):
            raise UserError(f"models.{model}.settings: there is no family '{min(unknown)}'; known: {', '.join(families)}")
        base = {key: value for key, value in spec.items() if key != "settings"}
        if model == parameters["model"]:
            base = _merge(base, parameters["base_model"])
        if base.get("dtype") == "auto":
            base = {**base, "dtype": parameters["auto_dtype"]}
        for family in families:
            settings = _merge(_merge(parameters[family], changes.get(family, {})), given.get(family, {}))
            variants[family]["models"][model] = {"base_model": base, "settings": settings}
    return variants


def collect_chats(variants: Mapping[str, Any], catalog: Mapping[str, Any]) -> dict[str, Any]:
    """Put the datasets that families name under `chats` into one entry, so that further ones take no code.

    Args:
        variants: see `make_variants`.
        catalog: its entries.

    Raises:
        UserError: one of them is no entry of the catalog.
    """
    entries = {}
    for family, variant in variants.items():
        for model in variant["models"].values():
            for name, chats in model["settings"].get("chats", {}).items():
                if (dataset := chats["dataset"]) not in catalog:
                    raise UserError(f"{family}.chats.{name}: the catalog has no dataset '{dataset}'; add it to catalog.yml")
                entries[dataset] = catalog[dataset]
    return {
        "type": "persona_leakage.datasets.NamedDatasets",
        "datasets": entries,
        "metadata": {"kedro-viz": {"layer": "raw"}},
    }


def _merge(below: Any, above: Any) -> Any:
    """Put one block over another, key by key; anything but a block replaces what is there."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _merge(below[key], value) if key in below else value for key, value in above.items()}}
