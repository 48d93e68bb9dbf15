"""The language of what a command prints.

Apart from the commands, because a process speaks one language: it is set once, from `--lang`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from results.markdown import Table

_CHOSEN: Final = {"lang": "en"}


def speak(lang: str) -> None:
    """Choose the language of this process.

    Raises:
        typer.BadParameter: there is none of that name (exit code 2).
    """
    from results.words import LANGS

    if lang not in LANGS:
        raise typer.BadParameter(f"--lang {lang} is not known; use {' or '.join(LANGS)}")
    _CHOSEN["lang"] = lang


def words(text: str) -> str:
    """A sentence or label in that language; unchanged where it has none."""
    from results.phrases import localized

    return localized(text, _CHOSEN["lang"])


def table(made: Table) -> Table:
    """A table in that language."""
    from results import phrases

    return phrases.table(made, _CHOSEN["lang"])
