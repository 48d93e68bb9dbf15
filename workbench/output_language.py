"""Translation of what commands print and screens show.

A process has one language, set once from `--lang`; commands and screens translate here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from results.text.table import Table

_CHOSEN: Final = {"lang": "en"}


def set_language(lang: str) -> None:
    """Set the language of this process, one of `results.text.translations.LANGS`."""
    _CHOSEN["lang"] = lang


def chosen_language() -> str:
    """The language of this process: `en`, unless it was set."""
    return _CHOSEN["lang"]


def translate(text: str) -> str:
    """A sentence or label in the language of this process; unchanged without a translation."""
    if _CHOSEN["lang"] == "en":
        return text
    from results.records.message_translations import localize

    return localize(text, _CHOSEN["lang"])


def translate_table(table: Table) -> Table:
    """A table in the language of this process."""
    from results.records import message_translations

    return message_translations.localize_table(table, _CHOSEN["lang"])
