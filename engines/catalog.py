"""The engines by name. Light: importing it, or an engine package, never loads torch.

An engine is one package here. Its `__init__` declares what it is; the computing modules are
imported by its `run`.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from pydantic import BaseModel

from engines.protocol import RunSpec, Task

if TYPE_CHECKING:  # the workbench reads this catalogue and must not know what speaks for engines
    from engines.emitter import Emitter

_NAMES: Final = ("retrieval", "probe")


class UnknownEngineError(LookupError):
    """There is no engine of that name; the message names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])


class Engine(Protocol):
    """What an engine package offers."""

    SUMMARY: str
    """One line for lists."""
    TASKS: tuple[Task, ...]
    NEEDS: tuple[str, ...]
    """Fields of a record without which it has nothing to work on; empty: needs no subset."""
    Params: type[BaseModel]
    """Every setting, with description, unit and limits: feeds plans, help and forms."""

    def run(self, spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
        """Do the work of one run, in this process."""


def names() -> list[str]:
    """All engines, the main one first."""
    return list(_NAMES)


def load(name: str) -> Engine:
    """The engine package of that name.

    Raises:
        UnknownEngineError: there is none.
    """
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(_NAMES)}"
        raise UnknownEngineError(f"no engine '{name}'{guess}")
    return cast("Engine", importlib.import_module(f"engines.{name}"))
