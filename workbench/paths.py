"""Where things live. Every path the workbench makes is made here; folders are private (0700)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

PACKAGES: Final = ("workbench", "engines", "datasets_mm", "results")
"""Our top-level packages."""


PLACES: Final = ("WORKBENCH_CACHE", "WORKBENCH_CONFIG", "WORKBENCH_LOG_ROOT", "WORKBENCH_LOCKS")
XDG_PLACES: Final = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")

_LEADING_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))(?=/|\Z)")


def settle_variables(variables: MutableMapping[str, str]) -> list[str]:
    """Make the variables that name our folders absolute, for this process and all that it starts.

    Files of variables (of Docker, systemd, CI) know no shell: values keep their quotation marks,
    the line ends of Windows, and `~` and `$HOME` as they are typed. Empty: not set. A relative
    folder of XDG is ignored, as its specification says.

    Returns:
        One sentence for each value that names an unset variable; it is left as it is.
    """
    problems = []
    for name in (*PLACES, *XDG_PLACES):
        value = _unquote(variables.get(name, ""))
        folder = resolve(value) if value else None
        if folder is None or (name in XDG_PLACES and not _expand(value).startswith(("/", "~"))):
            variables.pop(name, None)
        elif unset := unset_variable(folder):
            problems.append(f"{name} is '{value}', but {unset} is not set; set it, or give a path")
        else:
            variables[name] = str(folder)
    return problems


def _unquote(value: str) -> str:
    """Without blanks and line ends around it, and without a pair of quotation marks."""
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1].strip()
    return value


def unset_variable(folder: Path) -> str:
    """The first part of a path that is `$NAME` and was not expanded; empty: there is none."""
    found = (part for part in folder.parts if _LEADING_VARIABLE.fullmatch(part))
    return next(found, "")


def resolve(path: Path | str) -> Path:
    """An absolute path; a leading `~` or `$NAME` counts also where no shell expanded it.

    Without a home (`HOME` unset and no such user) `~` stays a name, as an unset variable does, and
    one whose value is no absolute path.
    """
    path = _expand(str(path))
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        return Path(path).absolute()


def _expand(path: str) -> str:
    found = _LEADING_VARIABLE.match(path)
    value = os.environ.get(found[1] or found[2], "") if found else ""
    return value + path[found.end() :] if found and value.startswith("/") else path


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
    """Locks of this machine's devices. `WORKBENCH_LOCKS` moves it, and `WORKBENCH_CACHE` does.

    In the home and not in `XDG_RUNTIME_DIR`: that folder is removed at the last logout, and a
    login over SSH has it while a job of cron has not. Nor below `XDG_CACHE_HOME`, which a terminal
    inside a snap has of its own, unless the home cannot be written. By boot, since a home may be
    shared: names of hosts change, and each container on a machine has another.
    """
    if override := os.environ.get("WORKBENCH_LOCKS"):
        return resolve(override)
    home = resolve("~/.cache")
    root = home / "workbench"
    there = nearest_existing(home)
    usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    if os.environ.get("WORKBENCH_CACHE") or not usable:
        root = cache_root()
    return root / "locks" / boot_id()


def boot_id(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """What all containers of a running kernel share, and no two kernels; else the host's name."""
    try:
        return source.read_text().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()


def nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


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
