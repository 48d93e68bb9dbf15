"""Lanes of a machine: from GPUs by UUID, MIG slices, or shares of the cores."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from engines.protocol import RunSpec
from results.records.schema import GpuInfo
from workbench.processes import lanes
from workbench.processes.engine_process import start_engine
from workbench.processes.lanes import LaneChoice, LaneError, LanePlan, Machine, make_lanes

GPUS = tuple(GpuInfo(index=row, name="A100", uuid=f"GPU-{row}{row}") for row in range(8))
CUT = (
    *GPUS[:1],
    *(GpuInfo(index=1 + row, card_index=1, uuid=f"MIG-{row}", parent_uuid="GPU-11")
      for row in range(3)),
)  # fmt: skip

SUITE = Path("/logs/suite")


def spec(**fields: object) -> RunSpec:
    base = {"suite": "s", "run_id": "r", "engine": "e", "subset": "d", "model": "m"}
    return RunSpec.model_validate({**base, "cache_root": "/none", **fields})


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_LOCKS", str(tmp_path))


@pytest.mark.parametrize(
    ("typed", "choice"),
    [
        ("all", "all"), (" all ", "all"), ("4", 4), (4, 4), ("0,1,3", (0, 1, 3)), ("3,", (3,)),
        ("GPU-5d, MIG-77", ("GPU-5d", "MIG-77")), ([0, 2], (0, 2)), ("", None), (None, None),
    ],
)  # fmt: skip
def test_lanes_as_typed_and_written_again(typed: object, choice: LaneChoice) -> None:
    adapter = TypeAdapter(LaneChoice)
    assert adapter.validate_python(typed) == choice
    assert adapter.validate_python(lanes.format_lanes(choice)) == choice


@pytest.mark.parametrize("typed", ["0", "-1", "65", "some", "0,x", "cuda:0", 1.5])
def test_lanes_that_are_none(typed: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(LaneChoice).validate_python(typed)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [8]), (3, [3, 2, 3]), (8, [1] * 8), (11, [1] * 11)]
)
def test_cores_are_split_whole_and_evenly(count: int, sizes: list[int]) -> None:
    cores = {2, 3, 4, 5, 10, 11, 12, 13}
    shares = lanes.split_cores(cores, count)
    assert [len(share) for share in shares] == sizes
    assert set().union(*shares) == cores
    if count <= len(cores):
        assert sum(sizes) == len(cores), "disjoint"


@pytest.mark.parametrize(
    ("plan", "fields", "variables", "gpus", "groups"),
    [
        (LanePlan("all"), {}, {}, GPUS, [[row] for row in range(8)]),
        (LanePlan(3), {}, {}, GPUS, [[0], [1], [2]]),
        (LanePlan((6, "GPU-0")), {}, {}, GPUS, [[6], [0]]),
        (LanePlan("all"), {}, {"CUDA_VISIBLE_DEVICES": "GPU-55,GPU-22"}, GPUS, [[5], [2]]),
        (LanePlan("all"), {"devices": (4, 7)}, {}, GPUS, [[4], [7]]),
        (LanePlan("all", 3), {}, {}, GPUS, [[0, 1, 2], [3, 4, 5]]),
        (LanePlan("all"), {"params": {"nproc_per_node": 4}}, {}, GPUS,
         [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (LanePlan(2, 2), {}, {}, GPUS, [[0, 1], [2, 3]]),
        (LanePlan("all"), {}, {}, CUT, [[0], [1], [2], [3]]),
        (LanePlan(("MIG-1",)), {}, {"CUDA_VISIBLE_DEVICES": "GPU-11"}, CUT, [[2]]),
    ],
)  # fmt: skip
def test_lanes_of_gpus(plan, fields, variables, gpus, groups) -> None:
    made = make_lanes(plan, [spec(**fields)], Machine(gpus, variables, range(16)), SUITE)
    assert [[gpu.index for gpu in lane.gpus] for lane in made] == groups
    uuids = [[gpus[row].uuid for row in group] for group in groups]
    assert [list(lane.place_run(spec()).devices) for lane in made] == uuids
    assert [set(lane.locks.devices) for lane in made] == [set(names) for names in uuids]
    assert set().union(*(lane.cores for lane in made)) == set(range(16))
    assert all(lane.locks.acquire() for lane in made), "no device in two lanes"


@pytest.mark.parametrize(
    ("plan", "fields", "variables", "gpus", "sentence"),
    [
        (LanePlan(9), {}, {}, GPUS, "9 lanes of 1 GPUs, but 8 are visible"),
        (LanePlan(3, 3), {}, {}, GPUS, "3 lanes of 3 GPUs, but 8 are visible"),
        (LanePlan((0, 9)), {}, {}, GPUS, "device 9: there is no such GPU"),
        (LanePlan((0, 1)), {}, {"CUDA_VISIBLE_DEVICES": "GPU-0"}, GPUS, "does not show it"),
        (LanePlan((0, 1)), {"devices": (1, 2)}, {}, GPUS, "not all are among the plan's devices"),
        (LanePlan("all", 2), {}, {}, CUT, "CUDA shows one MIG slice to a process"),
        (LanePlan((0, 1)), {"cpu": True}, {}, GPUS, "no GPU is visible here; give a number"),
        (LanePlan(2), {}, {"CUDA_VISIBLE_DEVICES": "1,0"}, CUT, "how CUDA counts MIG slices"),
        (LanePlan(2), {"devices": (1,)}, {}, (), "the driver lists no GPU"),
    ],
)
def test_lanes_that_cannot_be_had(plan, fields, variables, gpus, sentence: str) -> None:
    with pytest.raises(LaneError, match=sentence):
        make_lanes(plan, [spec(**fields)], Machine(gpus, variables, range(4)), SUITE)


@pytest.mark.parametrize("choice", ["all", 4])
def test_without_a_gpu_lanes_are_shares_of_the_cores(choice: LaneChoice) -> None:
    for fields, variables in (({"cpu": True}, {}), ({}, {"CUDA_VISIBLE_DEVICES": ""})):
        machine = Machine(GPUS, variables, range(4))
        made = make_lanes(LanePlan(choice), [spec(**fields)], machine, SUITE)
        assert [lane.cores for lane in made] == [{0}, {1}, {2}, {3}]
        assert {id(lane.locks) for lane in made} == {id(made[0].locks)}, "one lock of the CPU"
        assert made[1].place_run(spec()) == spec()
        assert [lane.name for lane in made] == ["lane 1", "lane 2", "lane 3", "lane 4"]


def test_without_lanes_there_is_one_of_everything() -> None:
    machine = Machine(GPUS, {}, range(4))
    (lane,) = make_lanes(LanePlan(), [spec(devices=(1, 2)), spec(devices=(2,))], machine, SUITE)
    assert lane.locks.devices == ("GPU-11", "GPU-22")
    assert (lane.gpus, lane.cores) == ((), frozenset())


def test_an_engine_has_the_cores_of_its_lane_from_the_start(tmp_path) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    started = start_engine([sys.executable, "-c", code], tmp_path, os.environ, 0, 4096, {core})
    while started.poll() is None:
        time.sleep(0.01)
    started.close()
    assert (tmp_path / "engine.log").read_text().strip() == f"[{core}]"
    assert os.sched_getaffinity(0) == before
