"""Options and settings with new names: the earlier ones work, and stderr tells the new."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from results.text import renamed_words
from results.text.renamed_words import RenamedWordWarning

_SHOW_WARNING: Final = warnings.showwarning


def rename_options(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with every option by its present name.

    `--until 2%` is an earlier name, `--until 11h30m` a time limit.

    Raises:
        PlanError: an option is given by both of its names.
    """
    from workbench.planning.plan import PlanError

    names = [word.partition("=")[0] for word in arguments]
    renamed: list[str] = []
    for at, (word, name) in enumerate(zip(arguments, names, strict=True)):
        value = word.partition("=")[2] or "".join(arguments[at + 1 : at + 2])
        is_duration = name == "--until" and "%" not in value
        option = name if is_duration else renamed_words.OPTIONS.get(name, name)
        if option != name:
            if option in names:
                raise PlanError([f"{name} and {option} are the same; leave out {name}"])
            renamed_words.warn_renamed(name, option)
        renamed.append(option + word.removeprefix(name))
    return renamed


def print_renamed_words(print_message: Callable[[str], None]) -> None:
    """From now on, print each `RenamedWordWarning` of this process once."""

    def show_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        if issubclass(category, RenamedWordWarning):
            print_message(str(message))
        else:
            _SHOW_WARNING(message, category, filename, lineno, file, line)

    warnings.simplefilter("once", RenamedWordWarning)
    warnings.showwarning = show_warning
