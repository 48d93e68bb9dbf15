"""Translation of a command's output.

A process has one language, set once from `--lang`; commands translate their output here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from results.tables.table import Table

_CHOSEN: Final = {"lang": "en"}


def set_language(lang: str) -> None:
    """Set the language of this process, one of `results.text.translations.LANGS`."""
    _CHOSEN["lang"] = lang


def translate(text: str) -> str:
    """A sentence or label in the language of this process; unchanged without a translation."""
    from results.tables.message_translations import localize

    return localize(text, _CHOSEN["lang"])


def translate_table(table: Table) -> Table:
    """A table in the language of this process."""
    from results.tables import message_translations

    return message_translations.localize_table(table, _CHOSEN["lang"])
