"""Where things live. Every path the workbench makes is made here; folders are private (0700)."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Built subsets, image caches, feature caches. `WORKBENCH_CACHE` moves it."""
    if override := os.environ.get("WORKBENCH_CACHE"):
        return Path(override).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "workbench"


def config_root() -> Path:
    """The user's own models, recipes and presets as TOML. `WORKBENCH_CONFIG` moves it."""
    if override := os.environ.get("WORKBENCH_CONFIG"):
        return Path(override).expanduser().absolute()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "workbench"


def log_root(given: Path | None = None) -> Path:
    """Where suites live: the flag, `WORKBENCH_LOG_ROOT`, or `bench_logs` in the current folder."""
    return (given or Path(os.environ.get("WORKBENCH_LOG_ROOT") or "bench_logs")).absolute()


def runtime_root() -> Path:
    """Locks of devices: the user's runtime folder, or a private folder under the cache."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "workbench"
    return cache_root() / "locks"


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner can read, with its parents; returns it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
