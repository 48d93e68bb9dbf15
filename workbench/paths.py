"""Where things live. Every path the workbench makes is made here; folders are private (0700)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PACKAGES: Final = ("workbench", "engines", "datasets_mm", "results")
"""Our top-level packages."""


def resolve(path: Path | str) -> Path:
    """An absolute path; `~` is the home folder, also where no shell expanded it.

    Without a home (`HOME` unset and no such user) `~` stays a name.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        return Path(path).absolute()


def cache_root() -> Path:
    """Built subsets, image caches, feature caches. `WORKBENCH_CACHE` moves it."""
    if override := os.environ.get("WORKBENCH_CACHE"):
        return resolve(override)
    return resolve(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "workbench"


def config_root() -> Path:
    """The user's own models, recipes and presets as TOML. `WORKBENCH_CONFIG` moves it."""
    if override := os.environ.get("WORKBENCH_CONFIG"):
        return resolve(override)
    return resolve(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "workbench"


def log_root(given: Path | None = None) -> Path:
    """Where suites live: the flag, `WORKBENCH_LOG_ROOT`, or `bench_logs` in the current folder."""
    return resolve(given or os.environ.get("WORKBENCH_LOG_ROOT") or "bench_logs")


def lock_root() -> Path:
    """Locks of this machine's devices. `WORKBENCH_LOCKS` moves it.

    Below the cache and not in `XDG_RUNTIME_DIR`: that folder is removed at the last logout, and a
    login over SSH has it while a job of cron has not. By host, since a home may be shared.
    """
    if override := os.environ.get("WORKBENCH_LOCKS"):
        return resolve(override)
    return cache_root() / "locks" / socket.gethostname()


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner can read, with its parents; returns it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def module_path(inherited: Mapping[str, str]) -> dict[str, str]:
    """Variables for every Python child: our packages, nothing from the current folder, UTF-8.

    A folder of results or data may hold a `torch.py`; `PYTHONSAFEPATH` keeps it out of the path,
    and then a source checkout has to be named. A terminal without UTF-8 must not make a child fail
    when it prints a Korean caption into its log.
    """
    variables = {
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",
        "MPLBACKEND": "agg",  # a notebook names one that only its kernel has
    }
    root = Path(__file__).resolve().parents[1]
    folders = [part for part in inherited.get("PYTHONPATH", "").split(os.pathsep) if part]
    if root.name not in ("site-packages", "dist-packages"):
        others = [folder for folder in folders if folder != str(root)]
        variables["PYTHONPATH"] = os.pathsep.join([str(root), *others])
    elif folders:
        kept = [folder for folder in folders if not _has_our_names(Path(folder))]
        variables["PYTHONPATH"] = os.pathsep.join(kept)
    return variables


def _has_our_names(folder: Path) -> bool:
    """Whether a package or module in it would be imported instead of one of ours."""
    entries = (entry for name in PACKAGES for entry in (folder / name, folder / f"{name}.py"))
    return any(entry.exists() for entry in entries)
