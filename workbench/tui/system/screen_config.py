"""The user's settings of the screen (screen.toml), and what the screen itself remembers."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

CONFIG_NAME: Final = "screen.toml"
STATE_NAME: Final = "screen-state.json"
THEMES: Final = ("dark", "light", "ansi", "colour-blind")
MODES: Final = ("plan", "live", "results", "data")


@dataclass(frozen=True, slots=True)
class ScreenConfig:
    """What screen.toml sets."""

    theme: str = ""
    """Of `THEMES`; empty: the one chosen last, or dark."""
    copy_command: str = ""
    """Gets copied text on stdin: `xclip -selection clipboard`."""
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    """By screen (or `all`): pressed key -> the key that it stands for."""
    problems: tuple[str, ...] = ()
    """Sentences about what is wrong in the file."""


def read_config(folder: Path) -> ScreenConfig:
    """The settings of a folder; wrong ones are left out and named in `problems`."""
    path = folder / CONFIG_NAME
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ScreenConfig()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return ScreenConfig(problems=(f"{path} cannot be read: {error}",))
    problems = [
        f"{path}: unknown key '{key}'; there are theme, copy_command and [keys]"
        for key in table
        if key not in ("theme", "copy_command", "keys")
    ]
    theme = table.get("theme", "")
    if theme and theme not in THEMES:
        problems.append(f"{path}: no theme '{theme}'; there are {', '.join(THEMES)}")
        theme = ""
    command = table.get("copy_command", "")
    if not isinstance(command, str):
        problems.append(f'{path}: copy_command is a text, as "wl-copy"')
        command = ""
    keys = _parse_keys(table.get("keys", {}), path, problems)
    return ScreenConfig(theme, command, keys, tuple(problems))


def _parse_keys(table: Any, path: Path, problems: list[str]) -> dict[str, dict[str, str]]:
    """`[keys]` for all screens, `[keys.results]` for one."""
    keys: dict[str, dict[str, str]] = {}
    for name, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, str):
            keys.setdefault("all", {})[name] = value
        elif isinstance(value, dict) and name in MODES:
            keys[name] = {k: v for k, v in value.items() if isinstance(v, str)}
        else:
            problems.append(f"{path}: [keys.{name}] is no screen; there are {', '.join(MODES)}")
    return keys


def read_state(folder: Path) -> dict[str, Any]:
    """What was remembered; empty if there is nothing, or it is damaged."""
    try:
        state = json.loads((folder / STATE_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Remember something.

    Raises:
        OSError: it cannot be written.
    """
    from datasets_mm.atomic_files import write_atomic

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / STATE_NAME, json.dumps(state, ensure_ascii=False) + "\n")
