"""GPUs as the warden sees them: fresh or stale, ours or another's, and never made up."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.gpu_readings import Gpu
from tests.fixtures.nvml.state import GIB, UNKNOWN_BYTES
from tests.fixtures.nvml.stub import LOST, RAW, Stub
from tests.fixtures.wardens import Sandbox, end_of, entries, until
from workbench.processes import tree
from workbench.processes.limits import Limits
from workbench.suites import control, suite_reader
from workbench.suites.control import Command
from workbench.telemetry import gpus
from workbench.telemetry.gpus import GpuWatch, build_gpu, sum_process_memory


@pytest.fixture
def watch(stub: Stub) -> Iterator[GpuWatch]:
    made = watching(stub)
    yield made
    made.stop()


def watching(stub: Stub, **limits: float) -> GpuWatch:
    fast = {"sample_seconds": 0.05, "slow_seconds": 0.05, "processes_seconds": 0.05}
    return GpuWatch(Limits(**{**fast, **limits}), stub.environment)


def started(watch: GpuWatch, monkeypatch: pytest.MonkeyPatch) -> GpuWatch:
    monkeypatch.setattr(gpus, "is_library_present", lambda: True)
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
    monkeypatch.setattr(gpus, "is_library_present", lambda: False)
    watch = watching(stub)
    for _ in range(3):
        assert not watch.start()
    assert (watch.starts, watch.fd, watch.pid) == (0, -1, None)
    assert watch.read({1}, None) == ((), "libnvidia-ml.so.1 is not on this machine")


def test_a_sampler_that_cannot_be_made_leaves_no_pipe_to_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(gpus, "is_library_present", lambda: True)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    watch, before = GpuWatch(Limits(), {}), tree.numeric_entries("/proc/self/fd")
    with pytest.raises(OSError, match="allocate"):
        watch.start()
    assert (watch.fd, tree.numeric_entries("/proc/self/fd")) == (-1, before)


def test_a_refusing_driver_is_asked_again_but_not_at_once(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "is_library_present", lambda: True)
    stub.state.rc_init = 9
    watch = watching(stub, sampler_restart_seconds=4.0)
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
        "from workbench.processes.limits import Limits\n"
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


def test_a_list_of_processes_from_before_the_driver_blocked_names_no_strangers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpus, "is_initial_pid_namespace", lambda: True)
    watch = GpuWatch(Limits(stale_periods=60), {})
    for age, strangers in ((0.0, 1), (60.0, 0)):
        reading = {"t": time.monotonic() - age, "gpus": [{"index": 0, "processes": [[7, 5]]}]}
        watch._parse_line(json.dumps(reading).encode())
        assert watch.count_foreign_processes({8}, {0}) == strangers


def test_garbage_from_the_sampler_is_counted(watch: GpuWatch) -> None:
    """Line by line, past the sampler's pipe: the sampler itself writes no garbage."""
    for line in (b"", b"null", b"[]", b"{}", b'{"facts":7}', b'{"t":"x","gpus":[]}', b"\xff"):
        watch._parse_line(line)
    assert watch.bad_lines == 7
    assert watch.read(set(), None) == ((), "no reading yet")


def test_only_our_own_processes_count() -> None:
    gpu = build_gpu(RAW, {10, 11})
    assert (gpu.process, gpu.reasons) == (150, {"utilisation": "Not Supported"})


def test_foreign_pids_are_zero_only_where_the_driver_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for initial, expected in ((True, 0), (False, None)):
        monkeypatch.setattr(gpus, "is_initial_pid_namespace", lambda initial=initial: initial)
        assert sum_process_memory([(4242, GIB)], "", {1})[0] == expected
        assert sum_process_memory([], "", {1})[0] == expected, (
            "containers are often shown no process at all"
        )
    assert "namespace" in sum_process_memory([], "", {1})[1]


def test_no_memory_where_torch_has_some_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "is_initial_pid_namespace", lambda: True)
    assert sum_process_memory([(1, 0)], "", {1})[0] is None, "a listed process has a context"
    raw = {**RAW, "processes": []}
    assert build_gpu(raw, {10}).process == 0
    later = build_gpu(raw, {10}, reserved=True)
    assert later.process is None
    assert "torch has some" in later.reasons["process"]
    assert build_gpu(RAW, {10}, reserved=True).process == 100


def test_a_process_of_unknown_size_is_never_summed() -> None:
    assert sum_process_memory([(1, 5), (2, None)], "", {1, 2})[0] is None
    assert sum_process_memory([(1, 5), (2, None)], "", {1}) == (5, "")
    assert sum_process_memory(None, "Insufficient Permissions", {1}) == (
        None,
        "Insufficient Permissions",
    )


def test_an_unknown_size_comes_as_null_from_the_library(stub: Stub) -> None:
    stub.state.devices[0].hold((1, 5), (2, UNKNOWN_BYTES))
    assert stub.gpu()["processes"] == [[1, 5], [2, None]]


def test_namespaces(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("pid:[4026531836]")
    (tmp_path / "there").symlink_to("pid:[4026532198]")
    assert gpus.is_initial_pid_namespace(tmp_path / "here")
    assert not gpus.is_initial_pid_namespace(tmp_path / "there")
    assert not gpus.is_initial_pid_namespace(tmp_path / "none")


def test_a_whole_run_on_a_stub_machine(library: Path, tmp_path: Path) -> None:
    """From the driver to the record: peaks, the process's share, the flag, a loss midway."""
    stub = Stub(library, tmp_path / "state", 2)
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment | {"WORKBENCH_FAKE_GPUS": "stub-0"}
        folder = sandbox.suite("polite", "ok")
        sandbox.start(folder, sample_seconds=0.1, slow_seconds=0.1, processes_seconds=0.1)
        sandbox.until_step(folder)
        current = suite_reader.SuiteReader(folder).poll().current
        assert current is not None
        assert current.state.pid is not None
        stub.state.devices[0].hold((current.state.pid, 3 * GIB), (4242, GIB))
        stub.state.devices[0].used = 40 * GIB
        reader = suite_reader.SuiteReader(folder)
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
        control.send_command(folder, Command(do="skip"))
        sandbox.finish(folder)
        record = json.loads((sandbox.logs / "results.jsonl").read_text().splitlines()[0])
        assert record["environment"]["nvml_stub"] is True
        assert record["environment"]["nvml_library"] == str(library)
        assert record["environment"]["driver"] == "570.00.stub"
        assert [gpu["uuid"] for gpu in record["environment"]["gpus"]] == [
            "GPU-stub-0", "GPU-stub-1",
        ]  # fmt: skip
        peak = record["memory"]["vram_device_peak"]
        assert (peak["value"], peak["method"]) == (40 * GIB, "NVML"), "of its own card alone"
        assert [gpu["uuid"] for gpu in record["environment"]["run_gpus"]] == ["GPU-stub-0"]
        assert end_of(folder).counters["sampler_cpu_seconds"] > 0
        assert entries(folder, 1), "the second run is not hurt by a lost GPU"


@pytest.mark.parametrize("leaks", [False, True])
def test_what_a_run_gives_back_is_counted(library: Path, tmp_path: Path, *, leaks: bool) -> None:
    stub = Stub(library, tmp_path / "state", 1)
    device = stub.state.devices[0]
    free = device.used
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment | {"WORKBENCH_FAKE_GPUS": "stub-0"}
        folder = sandbox.suite("polite")
        sandbox.start(
            folder, sample_seconds=0.1, slow_seconds=0.1, processes_seconds=0.1, vram_seconds=1.0
        )
        sandbox.until_step(folder)
        reader = suite_reader.SuiteReader(folder)
        pid = reader.poll().runs[0].state.pid
        assert pid is not None
        device.hold((pid, 3 * GIB))
        device.used = free + 3 * GIB

        def held() -> bool:
            sample = reader.poll().runs[0].state.sample
            return bool(sample and sample.gpus and sample.gpus[0].process == 3 * GIB)

        until(held, "its share")
        control.send_command(folder, Command(do="skip"))
        if not leaks:
            until(lambda: not Path(f"/proc/{pid}").exists(), "its end")
            device.hold()
            device.used = free
        sandbox.finish(folder)
        counted = end_of(folder).counters
        assert counted.get("vram_held_bytes", 0) == (3 * GIB if leaks else 0)
        assert counted.get("vram_given_back_bytes", 0) == (0 if leaks else 3 * GIB)
