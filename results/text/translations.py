"""Words and sentences of tables and reports in English and Korean.

`lang/tables.{en,ko}.toml`; of the kinds of reports `lang/report_kinds.{en,ko}.toml`. Headings
follow the reports that the users write by hand: Korean prose, English column names.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Final, Literal

from results.text.particles import KoreanTemplate

Lang = Literal["en", "ko"]

LANGS: Final[tuple[Lang, ...]] = ("en", "ko")


def translate(key: str, lang: str = "en") -> str:
    """Text of a key in a language: `group.name`, or `name` of the group `word`.

    Raises:
        KeyError: no such key or language.
    """
    group, _, name = key.rpartition(".")
    return load_words(lang)[group or "word"][name]


def cause(name: str, lang: str = "en") -> str:
    """How a run ended, by its code (see `engines.messages.Cause`); a newer code stays itself."""
    return load_words(lang)["cause"].get(name, name)


@functools.cache
def load_words(lang: str) -> dict[str, dict[str, str]]:
    """All texts of a language: group -> key -> text with places for values.

    Raises:
        KeyError: there is no such language.
    """
    if lang not in LANGS:
        raise KeyError(lang)
    folder = Path(__file__).parent / "lang"
    files = (folder / f"tables.{lang}.toml", folder / f"report_kinds.{lang}.toml")
    template = KoreanTemplate if lang == "ko" else str
    return {
        group: {key: template(text) for key, text in words.items()}
        for path in files
        for group, words in tomllib.loads(path.read_text("utf-8")).items()
    }
