"""Copying to the clipboard over SSH and tmux: the first way that works, else a file.

1. `copy_command` of the user's screen.toml, which gets the text on stdin,
2. `tmux load-buffer -w -` inside tmux, which also sets the terminal's clipboard,
3. OSC 52, an escape sequence to the terminal, which tells no success; only for texts that
   terminals take (most refuse more than 74,994 bytes),
4. a file in the log root.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from results.text.sanitize import clean_line

OSC52_BYTES: Final = 74_994
"""Of the text: 100,000 bytes of base64 less the frame, as xterm and tmux take them."""
TIMEOUT_SECONDS: Final = 5.0
TMUX: Final = ("tmux", "load-buffer", "-w", "-")


class Copied(NamedTuple):
    """Where the text went, and what did not work before."""

    target: str
    problems: tuple[str, ...] = ()


def copy_text(
    text: str,
    environment: Mapping[str, str],
    write_osc52: Callable[[str], None],
    file: Path,
    command: str = "",
) -> Copied:
    """Copy a text by the first way that works.

    Args:
        text: What is copied.
        environment: Of the process; `TMUX` is set inside tmux.
        write_osc52: Sends the sequence to the terminal.
        file: Where the text is written if nothing else takes it.
        command: The user's own command, or empty.

    Raises:
        OSError: not even the file can be written.
    """
    problems: list[str] = []
    commands = [tuple(shlex.split(command))] if command else []
    if environment.get("TMUX") and shutil.which(TMUX[0]):
        commands.append(TMUX)
    for words in commands:
        if problem := _pipe_text(words, text):
            problems.append(problem)
        else:
            return Copied(f"by {words[0]}", tuple(problems))
    if len(text.encode()) <= OSC52_BYTES:
        write_osc52(text)
        return Copied("to the terminal's clipboard (OSC 52)", tuple(problems))
    problems.append(f"{len(text.encode()):,} bytes are more than terminals take")
    file.write_text(text, encoding="utf-8")
    return Copied(f"into {file}", tuple(problems))


def _pipe_text(words: tuple[str, ...], text: str) -> str:
    """Run a command with the text on stdin; returns its problem, empty: it worked."""
    try:
        done = subprocess.run(
            words, input=text.encode(), capture_output=True, check=False, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "no answer"
        return clean_line(f"{words[0]}: {reason}")
    if done.returncode:
        talk = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        return clean_line(f"{words[0]}: {talk}")
    return ""
