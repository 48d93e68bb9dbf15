"""NVML against a compiled stand-in: every value may be missing, and none may be made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.protocol import Gpu
from tests.fixtures.nvml.state import GIB, MIB, UNKNOWN_BYTES, State, build_library, make_state
from tests.fixtures.wardens import ROOT, House, end_of, entries, until
from workbench import suite
from workbench.limits import Limits
from workbench.suite import Command
from workbench.telemetry import gpus, nvml
from workbench.telemetry.gpus import GpuWatch, gpu_of, held_by, shown_gpus

NOT_SUPPORTED, NO_PERMISSION, LOST, MISMATCH = 3, 4, 15, 18


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml-old"), "-DWITHOUT_V2")


class Stub:
    """A machine that has the stub for its driver."""

    def __init__(self, library: Path, path: Path, devices: int) -> None:
        self.state: State = make_state(path, devices)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LD_LIBRARY_PATH": str(library.parent),
            "NVML_STUB_STATE": str(path),
        }

    def once(self) -> list[dict]:
        """The sampler's two lines: facts and one reading; or the one that says why not."""
        done = subprocess.run(
            [sys.executable, "-m", "workbench.telemetry.sampler", "--once"],
            env=self.environment, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    def gpu(self, index: int = 0) -> dict:
        return self.once()[1]["gpus"][index]


@pytest.fixture
def stub(library: Path, tmp_path: Path) -> Stub:
    return Stub(library, tmp_path / "state", 1)


def test_a_healthy_gpu(stub: Stub) -> None:
    facts, reading = stub.once()
    assert facts["facts"]["gpus"] == [
        {"index": 0, "name": "STUB GPU", "uuid": "GPU-stub-0", "memory_bytes": 80 * GIB}
    ]
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


# The warden's side


@pytest.fixture
def watch(stub: Stub) -> Iterator[GpuWatch]:
    made = watching(stub)
    yield made
    made.stop()


def watching(stub: Stub, **limits: float) -> GpuWatch:
    fast = {"sample_seconds": 0.05, "slow_seconds": 0.05, "processes_seconds": 0.05}
    return GpuWatch(Limits(**{**fast, **limits}), stub.environment)


def started(watch: GpuWatch, monkeypatch: pytest.MonkeyPatch) -> GpuWatch:
    monkeypatch.setattr(gpus, "library_present", lambda: True)
    assert watch.start()
    watch.wait_for_facts(20)
    assert watch.facts
    return watch


def reading(watch: GpuWatch, own: set[int] | None = None) -> tuple[Gpu, ...]:
    until(lambda: watch.receive() or not watch.reason, "a reading")
    return watch.read(own or set(), None)[0]


def test_readings_follow_the_driver(
    watch: GpuWatch, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(watch, monkeypatch)
    assert reading(watch)[0].used == 10 * GIB
    stub.state.devices[0].used = 30 * GIB
    until(lambda: watch.receive() or reading(watch)[0].used == 30 * GIB, "the new figure")
    stub.state.devices[0].rc = LOST
    until(lambda: watch.receive() or reading(watch)[0].used is None, "the loss")
    assert reading(watch)[0].reasons["used"] == "GPU is lost"
    assert watch.cpu_seconds > 0


def test_a_blocking_driver_makes_readings_stale_and_stops_nobody(
    watch: GpuWatch, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(watch, monkeypatch)
    reading(watch)
    stub.state.devices[0].sleep_us = 30_000_000
    began = time.monotonic()
    until(lambda: watch.receive() or "stale" in watch.read(set(), None)[1], "staleness", seconds=5)
    for _ in range(100):
        watch.receive()
        watch.read(set(), None)
    assert watch.read(set(), None)[0] == ()
    watch.stop()
    assert time.monotonic() - began < 5, "the sampler is killed in the middle of its call"


def test_without_the_library_no_child_is_ever_started(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "library_present", lambda: False)
    watch = watching(stub)
    for _ in range(3):
        assert not watch.start()
    assert (watch.starts, watch.fd, watch.pid) == (0, -1, None)
    assert watch.read({1}, None) == ((), "libnvidia-ml.so.1 is not on this machine")


def test_a_refusing_driver_is_asked_again_but_not_at_once(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "library_present", lambda: True)
    stub.state.rc_init = 9
    watch = watching(stub, sampler_restart_seconds=0.5)
    watch.start()
    watch.wait_for_facts(20)
    assert watch.read(set(), None) == ((), "NVML: Driver Not Loaded")
    assert not watch.start()
    stub.state.rc_init = 0
    until(watch.start, "a second try")
    assert watch.starts == 2
    watch.wait_for_facts(20)
    assert reading(watch)
    watch.stop()


def test_a_sampler_dies_with_its_warden(stub: Stub, tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from workbench.limits import Limits\n"
        "from workbench.telemetry import gpus\n"
        "gpus.library_present = lambda: True\n"
        "watch = gpus.GpuWatch(Limits(), os.environ)\n"
        "watch.start()\n"
        "watch.wait_for_facts(20)\n"
        "print(watch.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env=stub.environment, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    sampler = int(parent.stdout.readline())
    stub.state.devices[0].sleep_us = 30_000_000  # also while it is stuck in the driver
    time.sleep(0.6)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not Path(f"/proc/{sampler}/cmdline").exists(), "the sampler's death", seconds=2)


def test_garbage_from_the_sampler_is_counted(watch: GpuWatch) -> None:
    for line in (b"", b"null", b"[]", b"{}", b'{"facts":7}', b'{"t":"x","gpus":[]}', b"\xff"):
        watch._take(line)
    assert watch.bad_lines == 7
    assert watch.read(set(), None) == ((), "no reading yet")


RAW = {
    "index": 0, "used": 1, "total": 2, "utilisation": None, "power": 1.0, "temperature": 1.0,
    "interface": "v2", "processes": [[10, 100], [11, 50], [99, 7]], "processes_reason": "",
    "reasons": {"utilisation": "Not Supported"},
}  # fmt: skip


def test_only_our_own_processes_count() -> None:
    gpu = gpu_of(RAW, {10, 11})
    assert (gpu.process, gpu.reasons) == (150, {"utilisation": "Not Supported"})


def test_foreign_pids_are_zero_only_where_the_driver_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for initial, expected in ((True, 0), (False, None)):
        monkeypatch.setattr(gpus, "in_initial_namespace", lambda initial=initial: initial)
        assert held_by([(4242, GIB)], "", {1})[0] == expected
        assert held_by([], "", {1})[0] == expected, "containers are often shown no process at all"
    assert "namespace" in held_by([], "", {1})[1]


def test_a_process_of_unknown_size_is_never_summed() -> None:
    assert held_by([(1, 5), (2, None)], "", {1, 2})[0] is None
    assert held_by([(1, 5), (2, None)], "", {1}) == (5, "")
    assert held_by(None, "Insufficient Permissions", {1}) == (None, "Insufficient Permissions")


def test_an_unknown_size_comes_as_null_from_the_library(stub: Stub) -> None:
    stub.state.devices[0].hold((1, 5), (2, UNKNOWN_BYTES))
    assert stub.gpu()["processes"] == [[1, 5], [2, None]]


def test_namespaces(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("pid:[4026531836]")
    (tmp_path / "there").symlink_to("pid:[4026532198]")
    assert gpus.in_initial_namespace(tmp_path / "here")
    assert not gpus.in_initial_namespace(tmp_path / "there")
    assert not gpus.in_initial_namespace(tmp_path / "none")


@pytest.mark.parametrize(
    ("devices", "environment", "shown"),
    [
        ((), {}, None),
        ((2,), {"CUDA_VISIBLE_DEVICES": "0"}, {2}),
        ((), {"CUDA_VISIBLE_DEVICES": "0, 2"}, {0, 2}),
        ((), {"CUDA_VISIBLE_DEVICES": ""}, set()),
        ((), {"CUDA_VISIBLE_DEVICES": "GPU-abc"}, {1}),
        ((), {"CUDA_VISIBLE_DEVICES": "-1"}, set()),
    ],
)
def test_which_gpus_a_run_is_shown(devices, environment, shown) -> None:
    facts = {"gpus": [{"index": 0, "uuid": "GPU-xyz"}, {"index": 1, "uuid": "GPU-abcdef"}]}
    assert shown_gpus(devices, environment, facts) == shown


def test_a_whole_run_on_a_stub_machine(library: Path, tmp_path: Path) -> None:
    """From the driver to the record: peaks, the process's share, the flag, a loss midway."""
    stub = Stub(library, tmp_path / "state", 2)
    with House(tmp_path) as house:
        house.environment |= stub.environment
        folder = house.suite("polite", "ok")
        house.start(folder, sample_seconds=0.1, slow_seconds=0.1, processes_seconds=0.1)
        house.until_step(folder)
        current = suite.Reader(folder).poll().current
        assert current is not None
        assert current.state.pid is not None
        stub.state.devices[0].hold((current.state.pid, 3 * GIB), (4242, GIB))
        stub.state.devices[0].used = 40 * GIB
        reader = suite.Reader(folder)
        until(
            lambda: reader.poll().runs[0].state.peaks.get("vram_process[0]") == 3 * GIB, "its share"
        )
        until(
            lambda: reader.poll().runs[0].state.peaks.get("vram_device[0]") == 40 * GIB, "the peak"
        )
        stub.state.devices[0].rc = LOST

        def lost() -> bool:
            sample = reader.poll().runs[0].state.sample
            return sample is not None and bool(sample.gpus) and sample.gpus[0].used is None

        until(lost, "the loss")
        suite.send(folder, Command(do="skip"))
        house.finish(folder)
        record = json.loads((house.logs / "results.jsonl").read_text().splitlines()[0])
        assert record["environment"]["nvml_stub"] is True
        assert record["environment"]["nvml_library"] == str(library)
        assert record["environment"]["driver"] == "570.00.stub"
        assert [gpu["uuid"] for gpu in record["environment"]["gpus"]] == [
            "GPU-stub-0", "GPU-stub-1",
        ]  # fmt: skip
        assert record["memory"]["vram_device_peak"]["value"] == (40 + 11) * GIB
        assert end_of(folder).counters["sampler_cpu_seconds"] > 0
        assert entries(folder, 1), "the second run is not hurt by a lost GPU"


@pytest.mark.parametrize("leaks", [False, True])
def test_what_a_run_gives_back_is_counted(library: Path, tmp_path: Path, *, leaks: bool) -> None:
    stub = Stub(library, tmp_path / "state", 1)
    device = stub.state.devices[0]
    free = device.used
    with House(tmp_path) as house:
        house.environment |= stub.environment
        folder = house.suite("polite")
        house.start(
            folder, sample_seconds=0.1, slow_seconds=0.1, processes_seconds=0.1, vram_seconds=1.0
        )
        house.until_step(folder)
        reader = suite.Reader(folder)
        pid = reader.poll().runs[0].state.pid
        assert pid is not None
        device.hold((pid, 3 * GIB))
        device.used = free + 3 * GIB

        def held() -> bool:
            sample = reader.poll().runs[0].state.sample
            return bool(sample and sample.gpus and sample.gpus[0].process == 3 * GIB)

        until(held, "its share")
        suite.send(folder, Command(do="skip"))
        if not leaks:
            until(lambda: not Path(f"/proc/{pid}").exists(), "its end")
            device.hold()
            device.used = free
        house.finish(folder)
        counted = end_of(folder).counters
        assert counted.get("vram_held_bytes", 0) == (3 * GIB if leaks else 0)
        assert counted.get("vram_given_back_bytes", 0) == (0 if leaks else 3 * GIB)
