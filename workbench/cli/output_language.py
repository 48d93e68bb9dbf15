"""The language of what a command prints.

A process has one language, set once from `--lang`; the commands pass everything they print here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from results.tables.table import Table

_CHOSEN: Final = {"lang": "en"}


def set_language(lang: str) -> None:
    """Choose the language of this process, one of `results.text.translations.LANGS`."""
    _CHOSEN["lang"] = lang


def translate(text: str) -> str:
    """A sentence or label in that language; unchanged where it has none."""
    from results.tables.message_translations import localized

    return localized(text, _CHOSEN["lang"])


def translate_table(table: Table) -> Table:
    """A table in that language."""
    from results.tables import message_translations

    return message_translations.table(table, _CHOSEN["lang"])
