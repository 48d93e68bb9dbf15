"""Whole runs beside a driver that refuses, and beside other tenants of the GPU."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.fixtures.nvml.stub import RAW, Stub
from tests.fixtures.wardens import Sandbox, end_of, until
from workbench.processes import gpu_selection
from workbench.processes.limits import Limits
from workbench.suites import control, suite_reader
from workbench.suites.control import Command
from workbench.telemetry import gpus
from workbench.telemetry.gpus import GpuWatch


def test_strangers_are_counted_only_where_pids_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, now = GpuWatch(Limits(stale_periods=60), {}), time.monotonic()
    watch.reason = ""
    other = {**RAW, "index": 1, "processes": [[77, 1]]}
    watch._last = {"t": now, "gpus": [RAW, other, {**RAW, "index": 2, "processes": None}]}
    monkeypatch.setattr(gpus, "is_initial_pid_namespace", lambda: True)
    assert watch.count_foreign_processes({10, 11}, {0}) == 1
    assert watch.count_foreign_processes({10, 11, 99}, {0}) == 0
    assert watch.count_foreign_processes({10, 11}, None) == 2
    assert watch.count_foreign_processes({1}, {2}) == 0, (
        "a list that nobody may see names no stranger"
    )
    watch._last = {"t": now, "gpus": [{"index": 0}]}
    assert watch.count_foreign_processes({1}, None) == 0
    watch._last = {"t": now, "gpus": [RAW]}
    monkeypatch.setattr(gpus, "is_initial_pid_namespace", lambda: False)
    assert watch.count_foreign_processes({10}, None) == 0
    watch.reason = "stale"
    assert watch.count_foreign_processes({10}, None) == 0


@pytest.mark.skipif(
    not gpus.is_initial_pid_namespace(),
    reason="another pid namespace: whose pids they are is unknown",
)
def test_another_tenant_marks_a_whole_run_as_contaminated(library: Path, tmp_path: Path) -> None:
    stub = Stub(library, tmp_path / "state", 1)
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment | {"WORKBENCH_FAKE_GPUS": "stub-0"}
        folder = sandbox.suite("polite")
        sandbox.start(folder, sample_seconds=0.1, slow_seconds=0.1, processes_seconds=0.1)
        sandbox.until_step(folder)
        reader = suite_reader.SuiteReader(folder)
        until(
            lambda: any(n.code == "other-tenant" for n in reader.poll().runs[0].state.notices),
            "the notice",
        )
        control.send_command(folder, Command(do="stop"))
        sandbox.finish(folder)
        assert end_of(folder).counters["contaminated"] == 1


def test_a_driver_that_refuses_leaves_a_run_alone(library: Path, tmp_path: Path) -> None:
    """Updated under a running module; what other codes say: `test_nvml.py`."""
    stub = Stub(library, tmp_path / "state", 1)
    stub.state.rc_init = 18
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment
        _, state = sandbox.run("ok", sample_seconds=0.1)
        assert state.runs[0].state.cause == "completed"
        record = json.loads((sandbox.logs / "results.jsonl").read_text().splitlines()[0])
        assert record["memory"]["vram_device_peak"]["value"] is None
        assert "NVML" in record["memory"]["vram_device_peak"]["reason"]


def test_a_throttled_run_says_so_in_its_record(library: Path, tmp_path: Path) -> None:
    stub = Stub(library, tmp_path / "state", 2)
    stub.state.devices[1].event_reasons = 0x4 | 0x20
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment | {"WORKBENCH_FAKE_GPUS": "stub-1"}
        folder = sandbox.suite("polite")
        sandbox.start(folder, sample_seconds=0.1, slow_seconds=0.1, processes_seconds=0.1)
        sandbox.until_step(folder)
        reader = suite_reader.SuiteReader(folder)

        def sampled() -> bool:
            sample = reader.poll().runs[0].state.sample
            return bool(sample and sample.gpus and sample.gpus[0].throttle)

        until(sampled, "a throttled sample")
        control.send_command(folder, Command(do="stop"))
        sandbox.finish(folder)
        record = json.loads((sandbox.logs / "results.jsonl").read_text().splitlines()[0])
        (said,) = [text for text in record["notices"] if text.startswith("throttled: ")]
        assert "of GPU 1 were held down in 100%" in said
        assert "power limit in 100%, temperature (driver) in 100%" in said
        assert "1,410 MHz on average, power limit 300 W" in said
        assert record["counters"]["notice:throttled"] == 1


def test_a_driver_that_was_slow_is_in_the_records_of_later_runs(
    library: Path, tmp_path: Path
) -> None:
    stub = Stub(library, tmp_path / "state", 1)
    stub.state.init_us = int((gpu_selection.driver_timeout() + 2) * 1e6)
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment | {"WORKBENCH_FAKE_GPUS": "stub-0"}
        folder = sandbox.suite("polite", "polite")
        sandbox.start(folder, sample_seconds=0.1)
        for number in range(2):
            reader = suite_reader.SuiteReader(folder)

            def sampled(number: int = number, reader: suite_reader.SuiteReader = reader) -> bool:
                sample = reader.poll().runs[number].state.sample
                return bool(sample and sample.gpus)

            until(sampled, f"figures of run {number}")
            control.send_command(folder, Command(do="skip"))
        sandbox.finish(folder)
        lines = (sandbox.logs / "results.jsonl").read_text().splitlines()
        first, second = (json.loads(line)["environment"] for line in lines)
        assert (first["gpus"], first["gpu_reason"]) == ([], "no reading yet")
        assert [gpu["uuid"] for gpu in second["gpus"]] == ["GPU-stub-0"]
