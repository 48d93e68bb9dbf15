"""Where device locks may lie: a local disk on which `flock` holds between processes."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.processes import lock_folder


def test_a_local_folder_that_is_yet_to_be_made_holds_locks(tmp_path: Path) -> None:
    assert lock_folder.find_problem(tmp_path / "a" / "locks") == ""
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs", "ceph"])
def test_a_network_file_system_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "mounts").write_text(f"30 21 0:40 / {tmp_path} rw - {kind} server:/x rw\n")
    problem = lock_folder.find_problem(tmp_path / "locks", tmp_path / "mounts")
    assert f"network file system ({kind})" in problem


def test_locks_that_two_processes_get_are_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert "two processes get the same lock" in lock_folder.find_problem(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, 524])
def test_the_error_of_the_system_is_the_reason(tmp_path: Path, monkeypatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert os.strerror(number) in lock_folder.find_problem(tmp_path)


def test_a_folder_that_somebody_else_made_first_is_refused(tmp_path: Path, monkeypatch) -> None:
    real = Path.stat
    other = SimpleNamespace(st_uid=os.geteuid() + 1)
    monkeypatch.setattr(Path, "stat", lambda path: other if path == tmp_path else real(path))
    assert lock_folder.find_problem(tmp_path / "locks") == f"{tmp_path} belongs to another user"
