"""The local cache of the Hugging Face hub: which repositories are here, at which commit.

Only reads the folders that huggingface_hub wrote (`KIND--OWNER--NAME/{refs,snapshots,blobs}`),
without importing it and without network access. Downloads are in building/download.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def cache_folder() -> Path:
    """Where huggingface_hub keeps its snapshots, by the same variables that it reads."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return (Path(home) if home else base).expanduser() / "hub"


def find_snapshot(
    repository: str, revision: str, kind: Literal["datasets", "models"] = "datasets"
) -> Path | None:
    """Folder of the revision's snapshot, called by its commit; None: not in the cache."""
    folder = cache_folder() / f"{kind}--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision  # a commit is its own name
    path = folder / "snapshots" / commit
    return path if commit and path.is_dir() else None
