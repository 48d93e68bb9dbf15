"""Whether a detached suite survives its user's logout under the configuration of logind.

A separate session protects a process from hang-ups, but not from systemd-logind: with
`KillUserProcesses=yes` all processes of a login are killed when it ends, tmux included.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDERS: Final = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
"""Where logind looks for logind.conf and logind.conf.d; of two files of one name the last wins."""
REMEDY: Final = (
    "run `loginctl enable-linger`, and start suites with `systemd-run --user --scope workbench …`"
)


def find_problem(root: Path = Path("/"), user: str | None = None) -> str:
    """One sentence with its remedy if this process ends at logout; empty: it does not.

    `root`: where the system's files lie. `user`: by default who runs this.
    """
    if "/session-" not in _read(root / "proc/self/cgroup"):
        return ""  # started by cron, a service or a scope of the user: not bound to a login
    chosen = dict(_read_settings(root))
    name = user or _user()
    if chosen.get("KillUserProcesses", "no").lower() not in ("yes", "true", "on", "1"):
        return ""
    if name in chosen.get("KillExcludeUsers", "root").split():
        return ""
    only = chosen.get("KillOnlyUsers", "").split()
    if only and name not in only:
        return ""
    return f"logind kills at logout whatever the login has started (KillUserProcesses); {REMEDY}"


def _read_settings(root: Path) -> Iterator[tuple[str, str]]:
    """Keys and values of logind's files, those that win last."""
    main = [path for folder in FOLDERS if (path := root / folder / "logind.conf").is_file()]
    parts: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in (root / folder / "logind.conf.d").glob("*.conf"):
            parts[path.name] = path
    for path in (*main[-1:], *(parts[name] for name in sorted(parts))):
        for line in _read(path).splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.lstrip().startswith(("#", ";")):
                yield key.strip(), value.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
