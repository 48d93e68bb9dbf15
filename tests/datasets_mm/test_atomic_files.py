"""Files and folders are there whole or not at all; a lock is held by one process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from datasets_mm.atomic_files import atomic_folder, locked, write_atomic


def test_a_full_disk_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "가")
    assert path.read_bytes() == "가".encode()

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    write_atomic(path, b"not synced")
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"synced", durable=True)
    assert path.read_bytes() == b"not synced"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_link_is_replaced_and_its_target_untouched(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("other")
    link.symlink_to(target)
    write_atomic(link, "own")
    assert (target.read_text(), link.read_text(), link.is_symlink()) == ("other", "own", False)
    assert link.stat().st_mode & 0o777 == 0o600


def test_a_folder_is_replaced_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "built"
    killed = tmp_path / ".built.tmp-1"
    killed.mkdir()
    with atomic_folder(folder) as draft:
        (draft / "one").touch()
        assert not folder.exists()

    def fail() -> None:
        with atomic_folder(folder) as draft:
            (draft / "two").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "built", "built/one",
    ]  # fmt: skip


def test_a_lock_is_held_until_its_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with locked(path), path.open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
