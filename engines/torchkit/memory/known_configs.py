"""Sizes of a model whose weights are not read: its folder's, its entry's, or of a table that ships.

Apart from `configs`, which reads one folder: a memory forecast has to know models that are not
here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engines import model_catalog
from engines.emitter import EngineError
from engines.model_catalog import ModelEntry, Part
from engines.torchkit.modeling.model_config import read_config

FOLDER: Final = "config.json"
TABLE: Final = "shipped sizes"
SCRATCH: Final = "the entry's architecture"


def sizes(part: ModelEntry | Part, table: Path) -> tuple[dict[str, Any], str] | None:
    """The configuration and where it was read; None: neither the folder nor the table says it.

    `table`: TOML by repository id; `source` of each entry says where it was read.

    Raises:
        EngineError: the folder's configuration is damaged.
    """
    folder = model_catalog.weights_folder(part)
    if folder is not None and (folder / "config.json").is_file():
        return read_config(folder), FOLDER
    with table.open("rb") as file:
        known = tomllib.load(file)
    if part.hub not in known:
        return None
    return {key: value for key, value in known[part.hub].items() if key != "source"}, TABLE


def unknown(name: str, what: str = "its sizes", setting: str = "") -> EngineError:
    """The sentence for a model of which nothing says `what`; `setting`: what names its folder."""
    remedy = f"set {setting} = path:/abs/dir" if setting else "name its folder as path:/abs/dir"
    return EngineError(f"model '{name}': {what} are not known here; {remedy}")


@contextmanager
def described(name: str) -> Iterator[None]:
    """Raise EngineError where the model's own sizes lack one that is asked for."""
    try:
        yield
    except KeyError as error:
        raise EngineError(f"model '{name}': its architecture lacks {error.args[0]}") from None
