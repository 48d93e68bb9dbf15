"""Configurations of models for memory estimates: from the model's folder, else a shipped table."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engines import model_catalog
from engines.emitter import EngineError
from engines.model_catalog import ModelEntry, ModelPart
from engines.torchkit.modeling.model_config import read_config

FOLDER: Final = "config.json"
TABLE: Final = "shipped sizes"
SCRATCH: Final = "the entry's architecture"


def find_config(part: ModelEntry | ModelPart, table: Path) -> tuple[dict[str, Any], str] | None:
    """The configuration and its source; None: neither the folder nor the table has it.

    `table`: TOML by repository id or GGUF file; `source` of each entry: where its sizes come from.

    Raises:
        EngineError: the folder's configuration is damaged.
    """
    folder = model_catalog.weights_folder(part)
    if folder is not None and (folder / "config.json").is_file():
        return read_config(folder), FOLDER
    with table.open("rb") as file:
        entries = tomllib.load(file)
    name = part.hub or getattr(part, "gguf", "")
    if name not in entries:
        return None
    return {key: value for key, value in entries[name].items() if key != "source"}, TABLE


def unknown_model_error(name: str, subject: str = "its sizes", setting: str = "") -> EngineError:
    """The error for a model whose `subject` is not known; `setting` names its folder."""
    remedy = f"set {setting} = path:/abs/dir" if setting else "name its folder as path:/abs/dir"
    return EngineError(f"model '{name}': {subject} are not known here; {remedy}")


@contextmanager
def missing_sizes_as_errors(name: str) -> Iterator[None]:
    """Context that raises a KeyError of a missing size as EngineError."""
    try:
        yield
    except KeyError as error:
        raise EngineError(f"model '{name}': its architecture lacks {error.args[0]}") from None
