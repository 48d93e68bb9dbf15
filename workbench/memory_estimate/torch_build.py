"""torch's build, read from its own version.py as text: importing torch takes two seconds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path


def folder() -> Path | None:
    """Where torch lies; None: it is not installed."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def version(place: Path) -> str:
    """`2.15.0+cu132`; empty: unknown."""
    return _stated(place, "__version__")


def cuda(place: Path | None) -> str:
    """The CUDA version that it was built for, `13.2`; empty: for CPUs only, or no torch is here."""
    return _stated(place, "cuda") if place else ""


def _stated(place: Path, name: str) -> str:
    try:
        text = (place / "version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE)
    return match.group(1) if match else ""
