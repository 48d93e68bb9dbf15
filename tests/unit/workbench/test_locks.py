"""Device locks: one suite at a time, nothing stale, company is known."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from workbench.locks import DeviceLocks, devices_of, take


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
    first.release()
    third.release()
    assert second.acquire()
    assert second.behind == ""


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from workbench.locks import DeviceLocks
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


@pytest.mark.parametrize(
    ("devices", "environment", "gpus", "names"),
    [
        ((), {}, 0, {"cpu"}),
        ((), {}, 2, {"gpu-0", "gpu-1"}),
        ((1,), {"CUDA_VISIBLE_DEVICES": "0"}, 2, {"gpu-1"}),
        ((), {"CUDA_VISIBLE_DEVICES": "1, 0"}, 2, {"gpu-0", "gpu-1"}),
        ((), {"CUDA_VISIBLE_DEVICES": ""}, 2, {"cpu"}),
        ((), {"CUDA_VISIBLE_DEVICES": "-1"}, 2, {"cpu"}),
        ((), {"CUDA_VISIBLE_DEVICES": "GPU-../x"}, 2, {"gpu-GPU-.._x"}),
    ],
)
def test_which_devices_a_run_takes(devices, environment, gpus, names) -> None:
    assert devices_of(devices, environment, gpus) == names


def test_take_is_exclusive_within_one_process_too(tmp_path: Path) -> None:
    held = take(tmp_path / "lock")
    assert held is not None
    assert take(tmp_path / "lock") is None
