"""What this terminal can do: the screen and the live table need less than many have."""

from __future__ import annotations

import locale
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from workbench.doctor.finding import Finding, note, ok

LEAST: Final = (80, 24)
PLAIN: Final = ("", "dumb", "unknown")
_LINES: Final = "use `workbench run --headless` and `workbench attach` here"


def examine(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Kind, size, colours, characters, and whether tmux stands between."""
    term = environment.get("TERM", "")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        yield ok("terminal", "none (input or talk is redirected): lines instead of a screen")
    elif term in PLAIN:
        text = f"TERM is {term or 'not set'}: it cannot place a cursor"
        yield note("terminal", text, f"{_LINES}, or set TERM to what the terminal is")
    else:
        columns, lines = shutil.get_terminal_size((0, 0))
        text = f"{term}, {columns} × {lines}, {colours(environment)}"
        if columns < LEAST[0] or lines < LEAST[1]:
            yield note("terminal", text, "make it 80 × 24 or larger; parts of the screen are cut")
        else:
            yield ok("terminal", text)
    yield from multiplexer(environment)
    yield characters(locale.getpreferredencoding(False), sys.stdout.encoding or "")


def colours(environment: Mapping[str, str]) -> str:
    """In words, as programs decide it from the environment."""
    if environment.get("NO_COLOR"):
        return "no colours (NO_COLOR)"
    if environment.get("COLORTERM", "") in ("truecolor", "24bit"):
        return "16 million colours"
    return "256 colours" if "256" in environment.get("TERM", "") else "16 colours"


def multiplexer(environment: Mapping[str, str]) -> Iterator[Finding]:
    """A line where tmux or screen stands between."""
    if not environment.get("TMUX"):
        return
    term = environment.get("TERM", "")
    if term.startswith(("tmux", "screen")):
        yield ok("tmux", "suites and the screen survive a dropped line")
    else:
        text = f"inside tmux, but TERM is {term}"
        yield note("tmux", text, "remove the setting of TERM from your shell's files")


def characters(preferred: str, output: str) -> Finding:
    """Charts are drawn in braille and boxes: without UTF-8 they become plain characters."""
    names = {name.lower().replace("-", "").replace("_", "") for name in (preferred, output)}
    if names <= {"utf8"}:
        return ok("characters", "UTF-8")
    shown = " and ".join(sorted({preferred, output} - {""}))
    return note("characters", f"{shown}: other letters appear as ?", "set LANG=C.UTF-8")


def environment() -> Mapping[str, str]:
    """The variables of this process."""
    return os.environ
