"""Root folders of the workbench (cache, configuration, logs, locks); all are private (0700)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

PACKAGES: Final = ("workbench", "engines", "datasets_mm", "results")
"""Our top-level packages."""


FOLDER_VARIABLES: Final = (
    "WORKBENCH_CACHE",
    "WORKBENCH_CONFIG",
    "WORKBENCH_LOG_ROOT",
    "WORKBENCH_LOCKS",
)
XDG_VARIABLES: Final = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")

_LEADING_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))(?=/|\Z)")


def resolve_variables(variables: MutableMapping[str, str]) -> list[str]:
    """Make the variables that name our folders absolute, for this process and its children.

    Values from files (of Docker, systemd, CI) pass no shell: quotation marks, the line ends of
    Windows, `~` and `$HOME` are resolved here. Empty: not set. A relative folder of XDG is ignored,
    as its specification says.

    Returns:
        One sentence for each value that names an unset variable; the value stays unchanged.
    """
    problems = []
    for name in (*FOLDER_VARIABLES, *XDG_VARIABLES):
        value = _unquote(variables.get(name, ""))
        folder = resolve(value) if value else None
        if folder is None or (name in XDG_VARIABLES and not _expand(value).startswith(("/", "~"))):
            variables.pop(name, None)
        elif unset := unset_variable(folder):
            problems.append(f"{name} is '{value}', but {unset} is not set; set it, or give a path")
        else:
            variables[name] = str(folder)
    return problems


def _unquote(value: str) -> str:
    """The value without surrounding blanks, line ends and a pair of quotation marks."""
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1].strip()
    return value


def unset_variable(folder: Path) -> str:
    """The first part of a path that is an unexpanded `$NAME`; empty: there is none."""
    unset_parts = (part for part in folder.parts if _LEADING_VARIABLE.fullmatch(part))
    return next(unset_parts, "")


def resolve(path: Path | str) -> Path:
    """An absolute path; expands a leading `~` or `$NAME`.

    `~` without a home (`HOME` unset and no such user), an unset variable, and a variable whose
    value is no absolute path stay as they are.
    """
    path = _expand(str(path))
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        return Path(path).absolute()


def _expand(path: str) -> str:
    match = _LEADING_VARIABLE.match(path)
    value = os.environ.get(match[1] or match[2], "") if match else ""
    return value + path[match.end() :] if match and value.startswith("/") else path


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


def log_root(override: Path | None = None) -> Path:
    """The folder of suites: `override`, `WORKBENCH_LOG_ROOT`, or `bench_logs` here."""
    return resolve(override or os.environ.get("WORKBENCH_LOG_ROOT") or "bench_logs")


def lock_root() -> Path:
    """Locks of this machine's devices, on its local disk. `WORKBENCH_LOCKS` moves it.

    Not below the home, which machines may share by a network file system. `XDG_RUNTIME_DIR` is
    removed at the last logout and missing in cron jobs, and `TMPDIR` differs between sessions.
    """
    if override := os.environ.get("WORKBENCH_LOCKS"):
        return resolve(override)
    return Path(f"/tmp/workbench-{os.geteuid()}/locks")  # noqa: S108 - 0700, its owner is checked


def boot_id(source: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """An id shared by all containers of a running kernel, unique by boot; else the host name."""
    try:
        return source.read_text().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()


def nearest_existing(folder: Path) -> Path:
    """The folder itself if it exists, else its nearest existing parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def make_private(folder: Path) -> Path:
    """Make a folder with mode 0700, and its parents; returns it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def module_path(inherited: Mapping[str, str]) -> dict[str, str]:
    """Variables for every Python child: our packages, nothing from the current folder, UTF-8.

    A folder of results or data may hold a `torch.py`: `PYTHONSAFEPATH` keeps it out of the path,
    so a source checkout has to be in `PYTHONPATH`. With UTF-8 a child can print Korean captions
    into its log whatever the terminal's encoding.
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
        safe_folders = [folder for folder in folders if not _shadows_our_packages(Path(folder))]
        variables["PYTHONPATH"] = os.pathsep.join(safe_folders)
    return variables


def _shadows_our_packages(folder: Path) -> bool:
    """Whether a package or module in a folder would be imported instead of one of ours."""
    entries = (entry for name in PACKAGES for entry in (folder / name, folder / f"{name}.py"))
    return any(entry.exists() for entry in entries)
