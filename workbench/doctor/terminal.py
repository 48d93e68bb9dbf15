"""Capabilities of this terminal that the TUI and the live table need."""

from __future__ import annotations

import locale
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from workbench.doctor.finding import Finding, note, ok

LEAST_SIZE: Final = (80, 24)
PLAIN_TERMINALS: Final = ("", "dumb", "unknown")
_USE_LINES: Final = "use `workbench run --headless` and `workbench attach` here"


def terminal_findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about type, size, colours, multiplexer and encoding of the terminal."""
    term = environment.get("TERM", "")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        yield ok("terminal", "none (input or talk is redirected): lines instead of a screen")
    elif term in PLAIN_TERMINALS:
        text = f"TERM is {term or 'not set'}: it cannot place a cursor"
        yield note("terminal", text, f"{_USE_LINES}, or set TERM to what the terminal is")
    else:
        # stdout may be a pipe; stderr is the terminal.
        columns, lines = shutil.get_terminal_size(os.get_terminal_size(sys.stderr.fileno()))
        text = f"{term}, {columns} × {lines}, {describe_colours(environment)}"
        if columns < LEAST_SIZE[0] or lines < LEAST_SIZE[1]:
            yield note("terminal", text, "make it 80 × 24 or larger; parts of the screen are cut")
        else:
            yield ok("terminal", text)
    yield from multiplexer_findings(environment)
    yield encoding_finding(locale.getpreferredencoding(False), sys.stdout.encoding or "")


def describe_colours(environment: Mapping[str, str]) -> str:
    """The number of colours in words, by the environment."""
    if environment.get("NO_COLOR"):
        return "no colours (NO_COLOR)"
    if environment.get("COLORTERM", "") in ("truecolor", "24bit"):
        return "16 million colours"
    return "256 colours" if "256" in environment.get("TERM", "") else "16 colours"


def multiplexer_findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """A finding about tmux, if the terminal is inside it."""
    if not environment.get("TMUX"):
        return
    term = environment.get("TERM", "")
    if term.startswith(("tmux", "screen")):
        yield ok("tmux", "suites and the screen survive a dropped line")
    else:
        text = f"inside tmux, but TERM is {term}"
        yield note("tmux", text, "remove the setting of TERM from your shell's files")


def encoding_finding(preferred: str, output: str) -> Finding:
    """Whether the encodings are UTF-8; without it charts use plain characters, not braille."""
    names = {name.lower().replace("-", "").replace("_", "") for name in (preferred, output)}
    if names <= {"utf8"}:
        return ok("characters", "UTF-8")
    shown = " and ".join(sorted({preferred, output} - {""}))
    return note("characters", f"{shown}: other letters appear as ?", "set LANG=C.UTF-8")


def process_environment() -> Mapping[str, str]:
    """The variables of this process."""
    return os.environ
