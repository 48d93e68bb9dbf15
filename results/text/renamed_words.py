"""Words that people type and that have new names: one table for every parser and reader.

For one release the earlier word works and a warning names the new one. Stored files keep what they
were written with; their readers translate the keys.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

SETTINGS: Final[Mapping[str, str]] = {
    "accumulation": "gradient_accumulation_steps",
    "checkpointing": "gradient_checkpointing",
    "clip_norm": "max_grad_norm",
    "evaluate_batch": "eval_batch_size",
    "evaluate_every_epochs": "validate_every_epochs",
    "look_every_epochs": "validate_every_epochs",
    "max_tokens": "max_length",
    "predict_batch": "eval_batch_size",
    "workers": "num_workers",
}
"""Earlier name -> name, of settings of the engines. The other tables are alike."""

PLAN_KEYS: Final[Mapping[str, str]] = {"until": "max_uncertainty"}
"""Keys of a plan."""
OPTIONS: Final[Mapping[str, str]] = {"--anyway": "--force", "--until": "--max-uncertainty"}
"""Options of commands."""
COMMANDS: Final[Mapping[str, str]] = {"hold": "pause", "continue": "resume"}
"""Commands to a warden, as control.jsonl has them."""
WARDEN_STATES: Final[Mapping[str, str]] = {"holding": "paused"}
"""States of a warden, as warden.json has them."""


class RenamedWordWarning(DeprecationWarning):
    """Someone wrote an earlier name; the message is a sentence with the new one."""


def rename_keys(table: Any, names: Mapping[str, str] = SETTINGS) -> Any:
    """The table with every key by its present name; what is no table, as it is.

    Raises:
        ValueError: it has two names of one thing.
    """
    if not isinstance(table, Mapping):
        return table
    renamed: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, value in table.items():
        name = names.get(key, key)
        if name in sources:
            earlier, other = (key, sources[name]) if key in names else (sources[name], key)
            raise ValueError(f"'{earlier}' and '{other}' are the same; leave out '{earlier}'")
        renamed[name], sources[name] = value, key
    return renamed


def rename_typed_keys(table: Any, names: Mapping[str, str] = SETTINGS) -> Any:
    """`rename_keys` for what a person wrote, with a `RenamedWordWarning` for each earlier name.

    Raises:
        ValueError: as `rename_keys`.
    """
    renamed = rename_keys(table, names)
    for key in table if isinstance(table, Mapping) else ():
        if key in names:
            warn_renamed(key, names[key])
    return renamed


def rename_plan_keys(table: Any) -> Any:
    """`rename_keys` for keys of a plan."""
    return rename_keys(table, PLAN_KEYS)


def warn_renamed(earlier: str, name: str) -> None:
    """Warn that a word has a new name."""
    text = f"'{earlier}' is now called '{name}'; the earlier name works for one more release"
    warnings.warn(text, RenamedWordWarning, stacklevel=3)
