"""Device locks: one suite at a time, nothing stale, company is known."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engines.protocol import RunSpec
from results.records.schema import GpuInfo
from workbench.processes.device_locks import (
    DeviceLocks,
    device_names,
    list_other_holders,
    lock_file,
)


def lock(root: Path, *devices: str, holder: str = "suite") -> DeviceLocks:
    return DeviceLocks(devices, holder, root)


def test_all_or_none(tmp_path: Path) -> None:
    first, second = lock(tmp_path, "gpu-1", holder="first"), lock(tmp_path, "gpu-0", "gpu-1")
    assert first.acquire()
    assert first.acquire(), "asking twice is harmless"
    assert not second.acquire()
    assert second.behind == "first on gpu-1"
    third = lock(tmp_path, "gpu-0")
    assert third.acquire(), "the second holds nothing while it waits"
    elsewhere = DeviceLocks(["gpu-0"], "mine", tmp_path, log_root="/logs/b")
    assert not elsewhere.acquire()
    assert elsewhere.behind == "suite on gpu-0", "of an earlier version: no log root"
    first.release()
    third.release()
    assert elsewhere.acquire()
    other = DeviceLocks(["gpu-0"], "other", tmp_path, log_root="/logs/a")
    assert not other.acquire()
    assert other.behind == "mine on gpu-0, of /logs/b"
    elsewhere.release()
    assert second.acquire()
    assert second.behind == ""


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from workbench.processes.device_locks import DeviceLocks
        held = DeviceLocks(["cpu"], "other", Path(sys.argv[1]))
        print(held.acquire(), flush=True)
        time.sleep(60)
    """)
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"True\n"
    mine = lock(tmp_path, "cpu")
    assert not mine.acquire()
    assert mine.behind == "other on cpu"
    child.kill()
    child.wait()
    child.stdout.close()
    assert mine.acquire()


def test_suites_on_other_devices_are_listed_while_they_hold_them(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from workbench.processes.device_locks import DeviceLocks
        held = DeviceLocks(["gpu-1", "gpu-2"], "other", Path(sys.argv[1]))
        print(held.acquire(), flush=True)
        sys.stdin.read()
    """)
    mine = lock(tmp_path, "gpu-0", holder="mine")
    assert mine.acquire()
    (tmp_path / "device-gpu-3.lock").write_text('{"suite": "ended", "pid": 1}')
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"True\n"
    assert list_other_holders(tmp_path) == {"other"}
    child.communicate()
    assert list_other_holders(tmp_path) == set()
    assert list_other_holders(tmp_path / "missing") == set()


def test_an_inheriting_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    held = lock(tmp_path, "cpu")
    assert held.acquire()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    held.release()
    assert lock(tmp_path, "cpu").acquire()
    child.communicate(b"\n")


def test_sharing_is_known_to_both_and_ends(tmp_path: Path) -> None:
    holder, guest = lock(tmp_path, "cpu"), lock(tmp_path, "cpu")
    assert holder.acquire()
    assert not holder.contaminated()
    guest.share()
    assert holder.contaminated()
    assert guest.contaminated()
    guest.release()
    assert not holder.contaminated()
    guest.share()
    holder.release()
    assert guest.acquire(), "a guest becomes the holder once it is alone"
    assert not guest.contaminated()


def test_a_damaged_lock_file_still_locks(tmp_path: Path) -> None:
    held = lock(tmp_path, "cpu")
    assert held.acquire()
    (tmp_path / "device-cpu.lock").write_bytes(b"\xff")
    other = lock(tmp_path, "cpu")
    assert not other.acquire()
    assert other.behind == "another suite on cpu"


def test_all_gpus_and_one_of_them_exclude_each_other(tmp_path: Path) -> None:
    first, second = lock(tmp_path, "GPU-a", holder="first"), lock(tmp_path, "GPU-b")
    everything = lock(tmp_path, "cpu", "gpus", holder="all")
    assert first.acquire()
    assert second.acquire(), "two single GPUs do not exclude each other"
    assert not everything.acquire()
    assert everything.behind.endswith(" on gpus")
    cpu = lock(tmp_path, "cpu")
    assert cpu.acquire(), "whoever waits holds nothing"
    cpu.release()
    first.release()
    assert not everything.acquire()
    second.release()
    assert everything.acquire()
    assert not first.acquire()
    assert first.behind == "all on gpus"
    assert not cpu.acquire()


def test_company_is_known_between_all_gpus_and_one(tmp_path: Path) -> None:
    single, everything = lock(tmp_path, "GPU-a"), lock(tmp_path, "gpus")
    other = lock(tmp_path, "GPU-b")
    assert single.acquire()
    other.share()
    assert not single.contaminated(), "on another GPU"
    everything.share()
    assert single.contaminated()
    everything.release()
    single.release()
    assert everything.acquire()
    assert everything.contaminated(), "the guest on a single GPU"
    other.release()
    assert not everything.contaminated()


def test_a_gpu_without_uuid_locks_all(tmp_path: Path) -> None:
    spec = RunSpec(suite="s", run_id="r", engine="e", subset="d", model="m", cache_root="/none")
    lost = (GpuInfo(index=0, uuid="GPU-a"), GpuInfo(index=1))
    assert device_names(spec, {}, lost, tmp_path) == {"GPU-a", "gpus"}
    assert device_names(spec, {}, (), tmp_path) == {"cpu"}, "no GPU and no device node"
    (tmp_path / "nvidia0").touch()
    assert device_names(spec, {}, (), tmp_path) == {"cpu", "gpus"}
    named = spec.model_copy(update={"devices": (7,)})
    assert device_names(named, {}, lost, tmp_path) == {"cpu", "gpus"}, "no such index"


def test_take_is_exclusive_within_one_process_too(tmp_path: Path) -> None:
    held = lock_file(tmp_path / "lock")
    assert held is not None
    assert lock_file(tmp_path / "lock") is None


def test_a_tidied_lock_is_made_and_locked_again(tmp_path: Path) -> None:
    held = lock(tmp_path / "locks", "cpu", "gpu-1", holder="first")
    assert held.acquire()
    shutil.rmtree(tmp_path / "locks")
    assert not held.contaminated()
    second = lock(tmp_path / "locks", "gpu-1")
    assert not second.acquire()
    assert second.behind == "first on gpu-1"
    held.release()
    assert second.acquire()


def test_two_suites_whose_lock_was_tidied_between_them_learn_of_each_other(tmp_path: Path) -> None:
    first, second = lock(tmp_path, "gpu-1"), lock(tmp_path, "gpu-1")
    assert first.acquire()
    (tmp_path / "device-gpu-1.lock").unlink()
    assert second.acquire()
    assert not second.contaminated(), "nobody has told it yet"
    assert first.contaminated()
    assert second.contaminated()
    second.release()
    assert not first.contaminated(), "alone, and locked anew"


def test_locks_hold_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    mine = lock(tmp_path, "cpu")
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", refuse)
        assert mine.acquire()
    assert not lock(tmp_path, "cpu").acquire()
    assert mine.acquire()


def test_locks_that_fail_halfway_are_all_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = lock(tmp_path, "cpu", "gpu-0")
    open_file = DeviceLocks._open

    def refuse(self: DeviceLocks, device: str, kind: str) -> int:
        if device == "gpu-0":
            raise OSError(errno.EROFS, "Read-only file system")
        return open_file(self, device, kind)

    with monkeypatch.context() as broken:
        broken.setattr(DeviceLocks, "_open", refuse)
        for take in (mine.acquire, mine.share):
            with pytest.raises(OSError, match="Read-only"):
                take()
    assert mine.acquire(), "not behind itself"
    assert not mine.contaminated(), "no share of its own is left"
