"""Whole suites on several lanes, of a machine's cores and of GPUs that a stand-in driver lists."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from engines.messages import Attempt
from results.records.schema import RunRecord
from tests.fixtures.nvml.state import GIB, build_library
from tests.fixtures.nvml.stub import Stub
from tests.fixtures.wardens import PATIENCE, Sandbox, end_of, entries, until
from workbench.suites import control, suite_reader
from workbench.suites.control import Command
from workbench.suites.state import SuiteState
from workbench.supervisor import recovery

QUICK = {"sample_seconds": 0.1, "slow_seconds": 0.1, "processes_seconds": 0.1}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


def statuses(state: SuiteState) -> list[str]:
    return [run.state.status for run in state.runs]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists()


def test_lanes_work_side_by_side_and_an_end_touches_no_neighbour(tmp_path: Path) -> None:
    with Sandbox(tmp_path) as sandbox:
        folder = sandbox.suite("storm", "leave-behind", "ok", "polite", needs={2: [1]})
        sandbox.start(folder, lanes="2", slow_seconds=0.1)
        reader = suite_reader.SuiteReader(folder)
        until(lambda: statuses(reader.poll())[3] == "running", "the last run")
        state = reader.poll()
        assert [run.state.cause for run in state.runs] == ["", "completed", "completed", ""]
        noted = [
            [int(line) for line in (folder / "runs" / run.folder / "pids").read_text().split()]
            for run in state.runs[:2]
        ]
        until(lambda: not any(map(alive, noted[1])), "the end of what the second run left behind")
        assert all(map(alive, noted[0])), "children of the first run live on"
        state = reader.poll()
        assert [view.spec.model for view in state.working] == ["storm", "polite"]
        assert [lane.run for lane in state.lanes] == [view.spec.run_id for view in state.working]
        control.send_command(folder, Command(do="skip", run=state.runs[3].spec.run_id))
        until(lambda: reader.poll().runs[3].state.cause == "skipped", "the skipped run")
        assert all(map(alive, noted[0]))
        control.send_command(folder, Command(do="stop"))
        assert sandbox.finish(folder).runs[0].state.cause in ("stopped", "killed")
        ids = [run.spec.run_id for run in state.runs]
        assert end_of(folder, 0).shared_host == tuple(ids[1:])
        assert end_of(folder, 3).shared_host == (ids[0],)
        records = map(json.loads, (sandbox.logs / "results.jsonl").read_text().splitlines())
        assert {r["identity"]["run_id"]: bool(r["shared_host"]) for r in records} == dict.fromkeys(
            ids, True
        )


@pytest.mark.parametrize("victim", ["engine", "warden", "guard and warden"])
def test_kill_9_of_anything_loses_no_lane(tmp_path: Path, victim: str) -> None:
    with Sandbox(tmp_path) as sandbox:
        folder = sandbox.suite("polite", "polite" if "guard" in victim else "storm")
        guard = sandbox.start(folder, lanes="2")
        reader = suite_reader.SuiteReader(folder)
        until(lambda: all(run.state.step for run in reader.poll().runs), "two runs at work")
        state = reader.poll()
        if victim == "engine":
            os.kill(state.runs[1].state.pid, signal.SIGKILL)
            until(lambda: reader.poll().runs[1].state.cause == "killed", "the killed run's end")
            assert reader.poll().runs[0].state.status == "running", "its neighbour goes on"
            control.send_command(folder, Command(do="stop"))
            assert sandbox.finish(folder).runs[0].state.cause == "stopped"
            return
        for pid in [guard.pid] * (victim != "warden") + [state.warden_pid]:
            os.kill(pid, signal.SIGKILL)
        guard.wait()
        until(lambda: reader.poll().warden == "lost", "the loss of the warden")
        assert len(recovery.recover_dead_suite(folder)) == 2
        assert [run.state.cause for run in reader.poll().runs] == ["supervisor-lost"] * 2


def test_a_lane_waits_for_memory_and_for_processes_of_others(library: Path, tmp_path: Path) -> None:
    stub = Stub(library, tmp_path / "state", 8)
    devices = stub.state.devices
    for device in devices[:8]:
        device.hold()
    devices[5].hold((77, GIB))
    devices[6].used = devices[6].total - GIB
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment | {"CUDA_VISIBLE_DEVICES": "2,5,6,7"}
        sandbox.environment |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        fit = {"gpu": "STUB GPU", "total": {"train": 2 * GIB}}
        folder = sandbox.suite("polite", "polite", "ok", spec={"fit": fit})
        sandbox.start(folder, lanes="2,5,6", **QUICK)
        reader = suite_reader.SuiteReader(folder)
        waits = ["", "GPU 5: 1 process of others on it",
                 "GPU 6: 1.00 GiB free, the run's forecast is 2.00 GiB"]  # fmt: skip
        until(lambda: [lane.waiting for lane in reader.poll().lanes] == waits, "two waiting lanes")
        assert statuses(reader.poll())[1:] == ["queued", "queued"]
        devices[5].hold()
        until(lambda: statuses(reader.poll())[1] == "running", "the second lane's run")
        devices[6].used = 0
        until(lambda: reader.poll().runs[2].state.cause == "completed", "the third lane's run")
        control.send_command(folder, Command(do="stop"))
        sandbox.finish(folder)
        attempts = [entries(folder, row)[0].msg for row in range(3)]
        assert all(isinstance(attempt, Attempt) for attempt in attempts)
        shown = [attempt.environment["cuda_visible_devices"] for attempt in attempts]
        assert shown == ["GPU-stub-2", "GPU-stub-5", "GPU-stub-6"]


def test_a_mig_slice_is_a_lane_with_its_own_lock_readings_and_record(
    library: Path, tmp_path: Path
) -> None:
    stub = Stub(library, tmp_path / "state", 2)
    for device in stub.state.devices[:2]:
        device.hold()
    slices = [("MIG-a", "H100 MIG 3g.40gb", 40 * GIB), ("MIG-b", "H100 MIG 1g.10gb", 10 * GIB)]
    divided = stub.state.devices[1]
    divided.cut(able=True, slices=slices)
    divided.slices[0].used, divided.slices[1].used = 3 * GIB, GIB
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment | {"WORKBENCH_FAKE_GPUS": "visible"}
        folder = sandbox.suite("polite", "polite", "polite")
        sandbox.start(folder, lanes="all", **QUICK)
        reader = suite_reader.SuiteReader(folder)
        until(lambda: all(run.state.sample for run in reader.poll().runs), "samples of all lanes")
        names = ["GPU 0", "GPU 1 MIG-a", "GPU 1 MIG-b"]
        assert [lane.name for lane in reader.poll().lanes] == names
        second = sandbox.suite("ok", name="second")
        sandbox.start(second, lanes="MIG-b,")
        other = suite_reader.SuiteReader(second)
        until(lambda: other.poll().warden == "queued", "the second suite's wait")
        waiting = f"behind {folder.name} on MIG-b"
        assert [lane.waiting for lane in other.poll().lanes] == [waiting]
        run_id = reader.poll().runs[2].spec.run_id
        control.send_command(folder, Command(do="skip", run=run_id))
        assert sandbox.finish(second).runs[0].state.cause == "completed"
        control.send_command(folder, Command(do="stop"))
        sandbox.wardens[0].wait(PATIENCE)
    lines = (sandbox.logs / "results.jsonl").read_text().splitlines()
    rows = {r.identity.run_id: r for r in map(RunRecord.model_validate_json, lines)}
    records = [rows[run.spec.run_id] for run in reader.poll().runs]
    assert [r.environment.cuda_visible_devices for r in records] == ["GPU-stub-0", "MIG-a", "MIG-b"]
    taken = [(gpu.uuid, gpu.parent_uuid) for r in records for gpu in r.environment.run_gpus]
    assert taken == [("GPU-stub-0", ""), ("MIG-a", "GPU-stub-1"), ("MIG-b", "GPU-stub-1")]
    assert [r.memory.vram_device_peak.value for r in records[1:]] == [3 * GIB, GIB]
    assert records[1].energy.run.value is None
    assert rows["01-fake-none-ok"].shared_host == (folder.name,)


def test_two_suites_on_the_same_lanes_queue(library: Path, tmp_path: Path) -> None:
    stub = Stub(library, tmp_path / "state", 3)
    for device in stub.state.devices[:3]:
        device.hold()
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= stub.environment
        first, second = sandbox.suite("polite", "polite"), sandbox.suite("ok", "ok", name="second")
        sandbox.start(first, lanes="0,1")
        reader, other = suite_reader.SuiteReader(first), suite_reader.SuiteReader(second)
        until(lambda: len(reader.poll().working) == 2, "two runs of the first suite")
        sandbox.start(second, lanes="1,0")
        until(lambda: other.poll().warden == "queued", "the second suite's wait")
        waiting = [lane.waiting for lane in other.poll().lanes]
        assert waiting == [f"behind {first.name} on GPU-stub-{row}" for row in (1, 0)]
        control.send_command(first, Command(do="skip", run=reader.poll().runs[1].spec.run_id))
        assert [run.state.cause for run in sandbox.finish(second).runs] == ["completed"] * 2
        assert end_of(second, 0).shared_host == (first.name,), "on the other lane"
        assert reader.poll().runs[0].state.status == "running"
        control.send_command(first, Command(do="stop"))
        sandbox.wardens[0].wait(30)


def test_lanes_that_this_machine_does_not_have_end_the_warden_with_a_sentence(
    tmp_path: Path,
) -> None:
    with Sandbox(tmp_path) as sandbox:
        folder = sandbox.suite("ok", spec={"cpu": True})
        assert sandbox.start(folder, lanes="0,1").wait(30) == 1
        assert "lanes = 0,1: no GPU is visible here; give a number of lanes" in sandbox.log(folder)
