"""Figures on disk as they come: a cut run leaves every one that was measured, and valid files.

`figures.jsonl` has one object a line; `figures.md` is one table. Each entry is one `write` of whole
lines, flushed to the disk before the next step goes on.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, Self

HEAD = "| seconds | step | what | value | remark |\n|---:|---|---|---:|---|\n"
PLACES = 4
"""Significant digits in the table; the JSON has all."""


class Journal:
    """Appends to both files and prints."""

    def __init__(self, folder: Path) -> None:
        self._start = time.monotonic()
        self._files = [
            (folder / name).open("ab", buffering=0) for name in ("figures.jsonl", "figures.md")
        ]
        self._append(1, HEAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def write(self, step: str, name: str, value: Any = None, remark: str = "") -> None:
        """One entry; `value` is anything that JSON holds."""
        seconds = time.monotonic() - self._start
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)  # JSON has no such number
        entry = {"t": round(seconds, 3), "step": step, "what": name, "value": value}
        self._append(0, json.dumps(entry | ({"remark": remark} if remark else {})) + "\n")
        cells = [f"{seconds:.1f}", step, name, shown(value), remark]
        line = "| " + " | ".join(clean(cell) for cell in cells) + " |\n"
        self._append(1, line)
        print(line, end="", flush=True)

    def _append(self, file: int, text: str) -> None:
        self._files[file].write(text.encode())
        os.fsync(self._files[file].fileno())


def shown(value: Any) -> str:
    """A value as a cell of the table."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.{PLACES}g}" if abs(value) < 10**PLACES else f"{value:,.0f}"
    return str(value)


def clean(cell: str) -> str:
    """Without what would end a row or a cell."""
    return " ".join(cell.split()).replace("|", "/")
