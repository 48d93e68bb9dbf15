"""Version and CUDA build of torch, read from its version.py: importing torch takes two seconds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path


def torch_folder() -> Path | None:
    """The folder of the torch package; None: not installed."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def torch_version(folder: Path) -> str:
    """torch's version, such as `2.15.0+cu132`; empty: unknown."""
    return _read_constant(folder, "__version__")


def cuda_version(folder: Path | None) -> str:
    """The CUDA version of torch's build, such as `13.2`; empty: CPU only, or not installed."""
    return _read_constant(folder, "cuda") if folder else ""


def _read_constant(folder: Path, name: str) -> str:
    try:
        text = (folder / "version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE)
    return match.group(1) if match else ""
