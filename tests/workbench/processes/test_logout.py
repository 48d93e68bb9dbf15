"""Whether a detached suite outlives a logout: logind's settings, found as logind finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.processes import logout

SESSION = "0::/user.slice/user-1000.slice/session-3.scope\n"


def machine(root: Path, cgroup: str = SESSION, **files: str) -> Path:
    """A root with /proc and files of logind: `etc__logind` is etc/systemd/logind.conf."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        place, _, part = name.partition("__")
        folder = root / ("usr/lib" if place == "usr" else place) / "systemd"
        path = folder / ("logind.conf" if part == "logind" else f"logind.conf.d/{part}.conf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Login]\n{text}\n")
    return root


def test_a_suite_of_a_login_ends_with_it_where_logind_says_so(tmp_path: Path) -> None:
    root = machine(tmp_path, etc__logind="#KillUserProcesses=no\nKillUserProcesses=yes")
    sentence = logout.find_problem(root, "kim")
    assert "KillUserProcesses" in sentence
    assert "loginctl enable-linger" in sentence
    assert logout.find_problem(root, "root") == ""  # excluded unless somebody says otherwise


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"etc__logind": "#KillUserProcesses=yes"},
        {"etc__logind": "KillUserProcesses=yes", "etc__50-tmux": "KillUserProcesses=no"},
        {"etc__logind": "KillUserProcesses=yes\nKillExcludeUsers=root kim"},
        {"etc__logind": "KillUserProcesses=yes\nKillOnlyUsers=guest"},
        {"etc__logind": "KillUserProcesses=yes", "cgroup": "0::/system.slice/cron.service\n"},
        {"usr__10-optimus": "KillUserProcesses=yes", "etc__10-optimus": ""},
    ],
)
def test_elsewhere_it_does_not(tmp_path: Path, files: dict[str, str]) -> None:
    assert logout.find_problem(machine(tmp_path, **files), "kim") == ""


def test_a_package_may_set_it_in_a_folder_of_its_own(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        **{"usr__logind": "KillUserProcesses=no", "usr__10-optimus": "KillUserProcesses=yes"},
    )
    assert logout.find_problem(root, "kim")


def test_a_machine_without_logind_kills_nobody(tmp_path: Path) -> None:
    assert logout.find_problem(tmp_path) == ""
