"""The words of tables and reports in English and Korean, from `lang/*.toml`.

Apart so that a sentence is data, not code, and a language is one more file. Headings follow the
reports that people here already write: Korean prose, English column names.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Final, Literal

Lang = Literal["en", "ko"]

LANGS: Final[tuple[Lang, ...]] = ("en", "ko")


def say(key: str, lang: str = "en") -> str:
    """The word or sentence of that key: `group.name`, or `name` of the group `word`.

    Raises:
        KeyError: no such key or language; a fault of this room, not of a person.
    """
    group, _, name = key.rpartition(".")
    return _words(lang)[group or "word"][name]


def cause(name: str, lang: str = "en") -> str:
    """How a run ended, by its code (see `engines.messages.Cause`); a newer code stays itself."""
    return _words(lang)["cause"].get(name, name)


@functools.cache
def _words(lang: str) -> dict[str, dict[str, str]]:
    if lang not in LANGS:
        raise KeyError(lang)
    return tomllib.loads((Path(__file__).parent / "lang" / f"{lang}.toml").read_text("utf-8"))
