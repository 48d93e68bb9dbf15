"""NVML against a compiled stand-in: every value may be missing, and none may be made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.nvml.state import GIB, MIB
from tests.fixtures.nvml.stub import LOST, MISMATCH, NO_PERMISSION, NOT_SUPPORTED, Stub
from tests.fixtures.wardens import ROOT
from workbench.telemetry import gpus, nvml


def test_a_healthy_gpu(stub: Stub) -> None:
    facts, reading = stub.once()
    assert facts["facts"]["gpus"] == [
        {"index": 0, "name": "STUB GPU", "uuid": "GPU-stub-0", "memory_bytes": 80 * GIB,
         "capability": [8, 0]}
    ]  # fmt: skip
    gpu = reading["gpus"][0]
    assert (gpu["used"], gpu["total"], gpu["interface"]) == (10 * GIB, 80 * GIB, "v2")
    assert (gpu["utilisation"], gpu["power"], gpu["temperature"]) == (55.0, 250.0, 40.0)
    assert gpu["processes"] == [[4242, GIB]]
    assert gpu["reasons"] == {}


def test_the_stub_can_never_pass_as_real(stub: Stub, library: Path) -> None:
    facts = stub.once()[0]["facts"]
    assert facts["stub"] is True
    assert facts["library"] == str(library)
    stub.state.driver = b"570.86.15"  # a plausible version does not help it
    assert stub.once()[0]["facts"]["stub"] is True


@pytest.mark.parametrize(
    ("driver", "library", "stub"),
    [
        ("570.86.15", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.86.15", False),
        ("570.86.15", "/usr/local/nvidia/lib64/libnvidia-ml.so.1", False),
        ("570.86.15", "/usr/lib/wsl/lib/libnvidia-ml.so.1", False),
        ("570.00.stub", "/usr/lib/libnvidia-ml.so.1", True),
        ("570.86.15", "/tmp/libnvidia-ml.so.1", True),
        ("570.86.15", "/usr/libx/libnvidia-ml.so.1", True),
        ("570.86.15", "", True),
    ],
)
def test_what_is_taken_for_a_stub(driver: str, library: str, stub: bool) -> None:
    assert nvml.is_stub(driver, library) is stub


def test_the_library_path_is_the_one_that_was_loaded(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r--p 0 00:00 1   /usr/lib/libc.so.6\n"
        "7f02-7f03 r-xp 0 00:00 2   /opt/with space/libnvidia-ml.so.1\n"
        "7f04-7f05 r-xp 0 00:00 3   /libnvidia-ml.so.d/other.so\n"
    )
    assert nvml.library_path(maps) == "/opt/with space/libnvidia-ml.so.1"
    assert nvml.library_path(tmp_path / "none") == ""


def test_an_old_driver_without_v2_is_labelled(old_library: Path, tmp_path: Path) -> None:
    gpu = Stub(old_library, tmp_path / "state", 1).gpu()
    assert gpu["used"] == 10 * GIB + 600 * MIB
    assert gpu["interface"].startswith("v1")


def test_each_missing_value_is_null_with_its_reason(stub: Stub) -> None:
    device = stub.state.devices[0]
    device.rc_memory, device.rc_utilisation = NO_PERMISSION, NOT_SUPPORTED
    device.rc_power, device.rc_processes = NOT_SUPPORTED, NO_PERMISSION
    gpu = stub.gpu()
    assert (gpu["used"], gpu["total"], gpu["utilisation"], gpu["power"]) == (None,) * 4
    assert gpu["reasons"] == {
        "used": "Insufficient Permissions",
        "total": "Insufficient Permissions",
        "utilisation": "Not Supported",
        "power": "Not Supported",
    }
    assert gpu["temperature"] == 40.0, "the others go on"
    assert (gpu["processes"], gpu["processes_reason"]) == (None, "Insufficient Permissions")


def test_several_gpus_and_one_of_them_lost(library: Path, tmp_path: Path) -> None:
    stub = Stub(library, tmp_path / "state", 3)
    stub.state.devices[1].rc = LOST
    lines = stub.once()
    assert [gpu["used"] for gpu in lines[1]["gpus"]] == [10 * GIB, None, 12 * GIB]
    lost = lines[1]["gpus"][1]
    assert set(lost["reasons"].values()) == {"GPU is lost"}
    assert [gpu["name"] for gpu in lines[0]["facts"]["gpus"]] == ["STUB GPU", "", "STUB GPU"]


def test_drivers_with_the_wrong_process_struct_are_not_believed(stub: Stub) -> None:
    for driver, believed in ((b"535.54.03", False), (b"535.86.05", True), (b"535.29", True)):
        stub.state.driver = driver
        gpu = stub.gpu()
        assert (gpu["processes"] is not None) is believed
        assert ("wrong pids" in gpu["processes_reason"]) is not believed
    assert nvml.version_of("none") == (0, 0)


def test_a_driver_that_refuses_says_why(stub: Stub) -> None:
    stub.state.rc_init = MISMATCH
    (line,) = stub.once()
    assert line["permanent"] is False
    assert line["absent"].startswith("NVML: ")
    assert "version mismatch" in line["absent"]


def test_no_library_is_a_permanent_reason(tmp_path: Path) -> None:
    if gpus.library_present():
        pytest.skip("this machine has NVIDIA's library")
    done = subprocess.run(
        [sys.executable, "-m", "workbench.telemetry.sampler", "--once"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said == {"absent": "libnvidia-ml.so.1 is not on this machine", "permanent": True}


def test_the_impostor_package_is_refused(stub: Stub, tmp_path: Path) -> None:
    fake = tmp_path / "path"
    fake.mkdir()
    (fake / "pynvml.py").write_text("raise SystemExit('the impostor ran')")
    assert "hides the pynvml of nvidia-ml-py" in nvml.impostor(str(fake / "pynvml.py"))
    (fake / "pynvml.py").write_text("def nvmlInit():\n    raise SystemExit('the impostor ran')\n")
    stub.environment["PYTHONPATH"] = f"{fake}{os.pathsep}{ROOT}"
    (line,) = stub.once()
    assert line["permanent"] is True
    assert str(fake) in line["absent"]
