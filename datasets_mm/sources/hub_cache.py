"""The local cache of the Hugging Face hub: which dataset repositories are here, at which commit.

Looks only at files that huggingface_hub wrote (`datasets--OWNER--NAME/{refs,snapshots,blobs}`):
light enough for the command line, and never a network. Downloads are download.py's.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Where huggingface_hub keeps its snapshots, by the same variables that it reads."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return (Path(home) if home else base).expanduser() / "hub"


def snapshot(repository: str, revision: str) -> Path | None:
    """Folder of the revision's snapshot, called by its commit; None: not in the cache."""
    folder = cache() / f"datasets--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision  # a commit is its own name
    found = folder / "snapshots" / commit
    return found if commit and found.is_dir() else None
