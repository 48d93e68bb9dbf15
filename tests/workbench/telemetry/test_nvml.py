"""NVML against a compiled stand-in: every value may be missing, and none may be made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from results.records.schema import GpuInfo
from tests.fixtures.nvml.state import GIB, MIB, build_library
from tests.fixtures.nvml.stub import LOST, MISMATCH, NO_PERMISSION, NOT_SUPPORTED, Stub
from tests.fixtures.wardens import ROOT
from workbench.telemetry import gpus, nvml, nvml_library


def test_a_healthy_gpu(stub: Stub) -> None:
    facts, reading = stub.once()
    assert facts["facts"]["gpus"] == [
        {"index": 0, "name": "STUB GPU", "uuid": "GPU-stub-0", "memory_bytes": 80 * GIB,
         "capability": [8, 0], "card_index": 0, "pci_bus_id": "00000000:04:00.0",
         "parent_uuid": "", "usable": True}
    ]  # fmt: skip
    gpu = reading["gpus"][0]
    assert (gpu["used"], gpu["total"], gpu["interface"]) == (10 * GIB, 80 * GIB, "v2")
    assert (gpu["utilisation"], gpu["power"], gpu["temperature"]) == (55.0, 250.0, 40.0)
    assert (gpu["clock"], gpu["memory_clock"], gpu["power_limit"]) == (1410.0, 1410.0, 300.0)
    assert gpu["throttle"] == []
    first, second = gpu["energy"], stub.gpu()["energy"]
    assert 0 < second - first < 250 * 60, "250 W"
    assert gpu["processes"] == [[4242, GIB]]
    assert gpu["reasons"] == {}


def test_the_stub_can_never_pass_as_real(stub: Stub, library: Path) -> None:
    facts = stub.once()[0]["facts"]
    assert facts["stub"] is True
    assert facts["library"] == str(library)
    stub.state.driver = b"570.86.15"  # a plausible version does not help it
    assert stub.once()[0]["facts"]["stub"] is True


FOLDERS = (
    "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib", "/usr/lib64-nvidia",
    "/.singularity.d/libs", "/usr/local/nvidia/lib64", "/usr/local/nvidia/lib",
    "/run/opengl-driver/lib", "/nix/store/abc-nvidia-x11-580.95.05/lib", "/opt/conda/lib",
)  # fmt: skip


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml_library, "has_kernel_node", lambda *_: True)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_drivers_library_is_real_wherever_it_lies(folder: str) -> None:
    for variables in ({}, {"LD_LIBRARY_PATH": folder}):
        library = f"{folder}/libnvidia-ml.so.580.95.05"
        assert not nvml_library.is_stub("580.95.05", library, variables, lambda _: False)
    assert not nvml_library.is_stub("580.95.05", "", {}, lambda _: False), "maps are not readable"


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    ("driver", "library", "variables", "symbol"),
    [
        ("570.00.stub", "/usr/lib/libnvidia-ml.so.1", {}, ""),
        ("570.86.15", "/usr/local/cuda/lib64/stubs/libnvidia-ml.so", {}, ""),
        ("570.86.15", "/usr/lib/libnvidia-ml.so.1", {"NVML_STUB_STATE": "/x"}, ""),
        ("570.86.15", "/usr/lib/libnvidia-ml.so.1", {"MOCK_NVML_CONFIG": "/x"}, ""),
        ("570.86.15", "/usr/lib/libnvidia-ml.so.1", {}, "nvml_stub_marker"),
    ],
)
def test_each_sign_of_a_stand_in(driver, library, variables, symbol) -> None:
    assert nvml_library.is_stub(driver, library, variables, lambda name: name == symbol)


def test_a_library_without_a_kernel_driver_is_a_stand_in(tmp_path: Path) -> None:
    assert not nvml_library.has_kernel_node(tmp_path)
    for name in ("nvidiactl", "nvidia0", "dxg", "nvmap"):
        node = tmp_path / name
        node.touch()
        assert nvml_library.has_kernel_node(tmp_path), name
        node.unlink()


def test_the_marker_alone_gives_the_compiled_stub_away(library: Path) -> None:
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).nvml_stub_marker"
    subprocess.run([sys.executable, "-c", code, str(library)], check=True)
    assert "nvml_stub_marker" in nvml_library.STUB_SYMBOLS


def test_the_library_path_is_the_one_that_was_loaded(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r--p 0 00:00 1   /usr/lib/libc.so.6\n"
        "7f02-7f03 r-xp 0 00:00 2   /opt/with space/libnvidia-ml.so.1\n"
        "7f04-7f05 r-xp 0 00:00 3   /libnvidia-ml.so.d/other.so\n"
    )
    assert nvml_library.library_path(maps) == "/opt/with space/libnvidia-ml.so.1"
    assert nvml_library.library_path(tmp_path / "none") == ""


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
        "energy": "Not Supported",
        "power_limit": "Not Supported",
    }
    assert gpu["temperature"] == 40.0, "the others go on"
    device.rc_reasons = NO_PERMISSION
    gpu = stub.gpu()
    assert (gpu["throttle"], gpu["reasons"]["throttle"]) == (None, "Insufficient Permissions")
    assert (gpu["processes"], gpu["processes_reason"]) == (None, "Insufficient Permissions")


@pytest.mark.parametrize("flags", [(), ("-DOLD_REASONS",)])
def test_what_holds_the_clocks_down_under_both_names(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    stub = Stub(build_library(tmp_path / "lib", *flags), tmp_path / "state", 1)
    idle, set_by_hand, power, heat = 1, 2, 4, 0x40
    for bits, reasons in (
        (idle | set_by_hand, []),
        (power, ["power limit"]),
        (power | heat | idle, ["power limit", "temperature (hardware)"]),
    ):
        stub.state.devices[0].event_reasons = bits
        assert stub.gpu()["throttle"] == reasons


def test_a_divided_card_is_listed_as_its_slices(library: Path, tmp_path: Path) -> None:
    stub = Stub(library, tmp_path / "state", 3)
    slices = [("MIG-a", "H100 MIG 3g.40gb", 40 * GIB), ("MIG-b", "H100 MIG 1g.10gb", 10 * GIB)]
    stub.state.devices[1].cut(able=True, slices=slices)
    stub.state.devices[2].cut(able=True)
    stub.state.devices[2].mig_mode = 1  # on, and no slice made
    facts, reading = stub.once()
    rows = [GpuInfo.model_validate(row) for row in facts["facts"]["gpus"]]
    assert [(row.index, row.card, row.uuid, row.parent_uuid, row.usable) for row in rows] == [
        (0, 0, "GPU-stub-0", "", True),
        (1, 1, "MIG-a", "GPU-stub-1", True),
        (2, 1, "MIG-b", "GPU-stub-1", True),
        (3, 2, "GPU-stub-2", "", False),
    ]
    assert [row.memory_bytes for row in rows[1:3]] == [40 * GIB, 10 * GIB]
    whole, _, part, _ = reading["gpus"]
    assert (whole["utilisation"], whole["power"]) == (55.0, 250.0)
    assert part["total"] == 10 * GIB
    assert (part["utilisation"], part["power"]) == (None, None)
    assert part["reasons"]["utilisation"] == "NVML has no utilisation of a MIG slice"
    assert (part["temperature"], part["clock"], part["throttle"]) == (40.0, 1410.0, [])


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
    assert nvml.parse_version("none") == (0, 0)


def test_a_driver_that_refuses_says_why(stub: Stub) -> None:
    stub.state.rc_init = MISMATCH
    (line,) = stub.once()
    assert line["permanent"] is False
    assert line["absent"].startswith("NVML: ")
    assert "version mismatch" in line["absent"]


def test_no_library_is_a_permanent_reason(tmp_path: Path) -> None:
    if gpus.is_library_present():
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
    assert "hides the pynvml of nvidia-ml-py" in nvml_library.find_package_problem(
        str(fake / "pynvml.py")
    )
    (fake / "pynvml.py").write_text("def nvmlInit():\n    raise SystemExit('the impostor ran')\n")
    stub.environment["PYTHONPATH"] = f"{fake}{os.pathsep}{ROOT}"
    (line,) = stub.once()
    assert line["permanent"] is True
    assert str(fake) in line["absent"]
