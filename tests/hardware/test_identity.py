"""Which GPUs a run takes on every machine: locks, engine and figures agree by UUID."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from engines import gpu_readings
from engines import messages as m
from engines import protocol as p
from engines.torchkit.runtime import device
from results.records.schema import GpuInfo
from tests.hardware import fakes
from tests.hardware.machines import CATALOG, MACHINES, Machine
from workbench.doctor import gpus as doctor
from workbench.processes import device_locks, engine_process, gpu_selection
from workbench.supervisor.run_gpus import AttemptGpus
from workbench.telemetry import gpus as telemetry

every = pytest.mark.parametrize("machine", CATALOG, ids=lambda machine: machine.key)
with_gpu = pytest.mark.parametrize(
    "machine", [one for one in CATALOG if one.gpus], ids=lambda machine: machine.key
)


def spec(**fields: object) -> p.RunSpec:
    base = {"suite": "s", "run_id": "r", "engine": "e", "subset": "d", "model": "m"}
    return p.RunSpec.model_validate({**base, "cache_root": "/none", **fields})


def listed(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> tuple[GpuInfo, ...]:
    facts = fakes.facts_of(monkeypatch, machine)
    return tuple(GpuInfo.model_validate(row) for row in facts.get("gpus", ()))


def shown(machine: Machine, run: p.RunSpec, gpus: tuple[GpuInfo, ...] = ()) -> list[fakes.Visible]:
    """What CUDA shows the engine of a run that the warden starts there; `gpus`: NVML's list."""
    variables = engine_process.engine_environment(machine.environment, run, "t", 1, gpus=gpus)
    return fakes.visible(machine, variables)


RUNS = [{}, {"devices": (0,)}, {"devices": (1, 0)}, {"devices": ("GPU-0",)}, {"cpu": True}]


@every
@pytest.mark.parametrize("fields", RUNS, ids=str)
def test_locks_and_list_hold_every_gpu_that_the_engine_can_take(
    monkeypatch, machine: Machine, fields
) -> None:
    gpus, run = listed(monkeypatch, machine), spec(**fields)
    uuids = [one.uuid for one in shown(machine, run, gpus)]
    visible = gpu_selection.resolve_visible(run.devices, machine.environment, gpus, cpu=run.cpu)
    assert set(uuids) <= {gpu.uuid for gpu in visible.gpus}
    if visible.certain:
        assert [gpu.uuid for gpu in visible.gpus] == uuids
    else:
        assert visible.reason
    names = device_locks.device_names(run, machine.environment, gpus)
    assert set(uuids) <= names or device_locks.EVERY_GPU in names
    if not uuids and not run.devices:
        assert names == {"cpu"}


@with_gpu
@pytest.mark.parametrize("fields", RUNS[:2], ids=str)
def test_figures_are_of_the_gpu_that_torch_names(monkeypatch, machine: Machine, fields) -> None:
    gpus, run = listed(monkeypatch, machine), spec(**fields)
    fakes.see(monkeypatch, machine)
    variables = engine_process.engine_environment(machine.environment, run, "t", 1, gpus=gpus)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not torch.cuda.is_available():
        assert machine.key == "old-driver"
        return
    (named,) = device.identify_gpus(torch.device("cuda", 0))
    (truth, *_) = shown(machine, run, gpus)
    assert (named.name, named.memory_bytes) == (truth.name, truth.memory_bytes)
    visible = gpu_selection.resolve_visible(run.devices, machine.environment, gpus)
    rows = gpu_selection.match_engine_gpus([named], visible, gpus).indexes
    assert [gpus[row].uuid for row in rows] == [truth.uuid]
    by_bus = named.model_copy(update={"uuid": ""})
    rows = gpu_selection.match_engine_gpus([by_bus], visible, gpus).indexes
    assert [gpus[row].uuid for row in rows] in ([truth.uuid], []), "a slice's card has several"


@with_gpu
def test_doctor_names_the_gpus_of_a_run_or_says_why_not(monkeypatch, machine: Machine) -> None:
    facts = fakes.facts_of(monkeypatch, machine)
    finding = doctor.visibility_finding(facts, machine.environment)
    first = shown(machine, spec())[0].uuid
    assert first in finding.text
    sure = machine.key not in ("h100-mig", "mixed-chosen")
    assert (finding.standing == "ok") is sure
    assert bool(finding.remedy) is not sure
    hidden = doctor.visibility_finding(facts, {"CUDA_VISIBLE_DEVICES": "-1"})
    assert (hidden.standing, hidden.text) == ("note", "CUDA_VISIBLE_DEVICES hides every GPU")


@every
def test_cpu_hides_every_gpu(monkeypatch, machine: Machine) -> None:
    assert shown(machine, spec(cpu=True)) == []
    gpus = listed(monkeypatch, machine)
    fakes.see(monkeypatch, machine)
    assert device.choose_device((), cpu=True).type == "cpu", "also without the warden"
    assert not gpu_selection.sees_gpu((), os.environ, cpu=True)
    assert device_locks.device_names(spec(cpu=True), machine.environment, gpus) == {"cpu"}


@every
def test_no_drivers_library_is_called_a_stand_in(monkeypatch, machine: Machine) -> None:
    facts = fakes.facts_of(monkeypatch, machine)
    assert facts.get("stub", False) is False


@with_gpu
def test_a_driver_that_does_not_answer_locks_everything(monkeypatch, machine: Machine) -> None:
    fakes.see_driver(monkeypatch, machine)
    assert gpu_selection.driver_timeout() >= machine.driver_seconds + 2, (
        "8 cards without persistence"
    )
    assert device_locks.device_names(spec(), {}, ()) == {"cpu", device_locks.EVERY_GPU}
    assert device_locks.device_names(spec(cpu=True), {}, ()) == {"cpu"}
    assert device_locks.device_names(spec(), {"CUDA_VISIBLE_DEVICES": ""}, ()) == {"cpu"}


def test_different_cards_are_counted_as_nvml_does_unless_the_shell_chose() -> None:
    mixed = MACHINES["mixed"]
    plain = engine_process.engine_environment({}, spec(), "t", 1)
    assert plain["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert shown(mixed, spec())[0].uuid == mixed.gpus[0].uuid
    for chosen in ({"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}):
        made = engine_process.engine_environment(chosen, spec(), "t", 1)
        assert {name: made[name] for name in chosen} == chosen
        assert ("CUDA_DEVICE_ORDER" in made) == ("CUDA_DEVICE_ORDER" in chosen)


MIXED_UUIDS = [gpu.uuid for gpu in MACHINES["mixed"].gpus]


@pytest.mark.parametrize(
    ("variable", "rows"),
    [
        ("0,-1,1", [0]), ("0, 2", [0, 2]), ("0,9,1", [0]), ("", []), ("-1", []), ("0,0", []),
        ("NoDevFiles", []), ("GPU-00000003", [3]), ("GPU-0", []), (MIXED_UUIDS[5], [5]),
        ("GPU-00000001,GPU-77,GPU-00000002", [1]), ("1gpu2,2ampere", [1, 2]),
    ],
)  # fmt: skip
def test_the_environments_list_is_read_as_cuda_does(monkeypatch, variable: str, rows) -> None:
    gpus = listed(monkeypatch, MACHINES["mixed"])
    variables = {"CUDA_VISIBLE_DEVICES": variable, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    visible = gpu_selection.resolve_visible((), variables, gpus)
    assert [gpu.index for gpu in visible.gpus] == rows
    assert visible.certain
    assert bool(visible.reason) == (not rows)
    by_lock = device_locks.device_names(spec(), variables, gpus)
    if rows:
        assert by_lock == {gpus[row].uuid for row in rows}


def test_one_card_has_one_lock_under_all_its_names(monkeypatch) -> None:
    machine = MACHINES["mixed"]
    gpus = listed(monkeypatch, machine)
    uuid = machine.gpus[1].uuid
    by_plan = device_locks.device_names(spec(devices=(1,)), {}, gpus)
    by_uuid = device_locks.device_names(spec(), {"CUDA_VISIBLE_DEVICES": uuid}, gpus)
    by_prefix = device_locks.device_names(spec(), {"CUDA_VISIBLE_DEVICES": uuid[:13]}, gpus)
    assert by_plan == by_uuid == by_prefix == {uuid}
    unsure = device_locks.device_names(spec(), {"CUDA_VISIBLE_DEVICES": "1"}, gpus)
    assert unsure == {gpu.uuid for gpu in machine.gpus}, "CUDA counts different cards by speed"


MIXED, SLICED = MACHINES["mixed"], MACHINES["h100-mig"]
SLICE = SLICED.gpus[0].slices[1].uuid


@pytest.mark.parametrize(
    ("machine", "devices", "variables", "value", "problem"),
    [
        (MIXED, (3, 1), {}, [MIXED_UUIDS[3], MIXED_UUIDS[1]], ""),
        (MIXED, ("GPU-00000002", 5), {}, [MIXED_UUIDS[2], MIXED_UUIDS[5]], ""),
        (MIXED, (5,), {"CUDA_VISIBLE_DEVICES": MIXED_UUIDS[5]}, [MIXED_UUIDS[5]], ""),
        (MIXED, (4,), {"CUDA_VISIBLE_DEVICES": f"{MIXED_UUIDS[5]},GPU-00000001"}, [],
         f"does not show it; name one of GPU 5 ({MIXED_UUIDS[5]}), GPU 1"),
        (MIXED, (1,), {"CUDA_VISIBLE_DEVICES": "0,2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, [],
         "CUDA_VISIBLE_DEVICES=0,2 does not show it"),
        (MIXED, (0,), {"CUDA_VISIBLE_DEVICES": ""}, [], "hides every GPU; unset"),
        (MIXED, (9,), {}, [], "there is no such GPU; name one of GPU 0"),
        (MIXED, ("GPU-beef",), {}, [], "there is no such GPU"),
        (MIXED, (2, "GPU-00000002"), {}, [MIXED_UUIDS[2]] * 2, "it is named twice"),
        (SLICED, (SLICE,), {}, [SLICE], ""),
        (SLICED, (0,), {"CUDA_VISIBLE_DEVICES": SLICE}, [SLICE], ""),
        (SLICED, (0,), {}, ["0"], "it has 3 MIG slices; name one of GPU 0 (MIG-"),
    ],
)  # fmt: skip
def test_devices_are_resolved_to_uuids_within_what_the_environment_shows(
    monkeypatch, machine: Machine, devices, variables, value, problem: str
) -> None:
    gpus = listed(monkeypatch, machine)
    assert gpu_selection.visible_value(devices, variables, gpus) == ",".join(value)
    problems = gpu_selection.find_device_problems(devices, variables, gpus)
    assert bool(problems) == bool(problem)
    assert problem in " ".join(problems)
    if not problem:
        visible = gpu_selection.resolve_visible(devices, variables, gpus)
        assert [gpu.uuid for gpu in visible.gpus] == value
        run = spec(devices=devices)
        made = engine_process.engine_environment(variables, run, "t", 1, gpus=gpus)
        assert made["CUDA_VISIBLE_DEVICES"] == ",".join(value)
        assert device_locks.device_names(run, variables, gpus) == set(value)


def test_indexes_stay_where_the_driver_lists_nothing() -> None:
    made = engine_process.engine_environment({}, spec(devices=(2, 0)), "t", 1)
    assert (made["CUDA_VISIBLE_DEVICES"], made["CUDA_DEVICE_ORDER"]) == ("2,0", "PCI_BUS_ID")


def test_a_slice_is_one_device_and_its_card_is_none(monkeypatch) -> None:
    machine = MACHINES["h100-mig"]
    gpus = listed(monkeypatch, machine)
    card, slices = machine.gpus[0], machine.gpus[0].slices
    chosen = {"CUDA_VISIBLE_DEVICES": slices[1].uuid}
    assert device_locks.device_names(spec(), chosen, gpus) == {slices[1].uuid}
    assert (
        gpu_selection.resolve_visible((), chosen, gpus).gpus[0].memory_bytes == slices[1].mib << 20
    )
    everything = gpu_selection.resolve_visible((), {"CUDA_VISIBLE_DEVICES": card.uuid}, gpus)
    assert [gpu.uuid for gpu in everything.gpus] == [part.uuid for part in slices]
    assert not everything.certain
    named = [
        gpu_readings.EngineGpu(uuid=card.uuid.removeprefix("GPU-"))
    ]  # a CUDA that names the card
    alone = gpu_selection.match_engine_gpus(
        named, gpu_selection.resolve_visible((), chosen, gpus), gpus
    )
    assert alone.indexes == {1}
    several = gpu_selection.match_engine_gpus(named, everything, gpus)
    assert (several.indexes, "3 MIG slices" in several.reason) == (frozenset(), True)
    empty = [row.model_copy(update={"usable": False, "parent_uuid": ""}) for row in gpus[:1]]
    assert gpu_selection.resolve_visible((), {}, empty).gpus == ()


def test_all_ranks_gpus_are_named(monkeypatch) -> None:
    machine = MACHINES["kaggle"]
    gpus = listed(monkeypatch, machine)
    fakes.see(monkeypatch, machine)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    named = device.identify_gpus(torch.device("cuda", 0), ranks=2)
    assert [one.name for one in named] == ["Tesla T4"] * 2
    assert gpu_selection.match_engine_gpus(
        named, gpu_selection.resolve_visible((), {}, gpus), gpus
    ).indexes == {
        0,
        1,
    }
    assert device.identify_gpus(torch.device("cpu")) == ()


def watch_of(gpus: tuple[GpuInfo, ...], *used: int) -> telemetry.GpuWatch:
    """A watch that has heard the sampler already."""
    made = telemetry.GpuWatch(telemetry.Limits(sample_seconds=1e9), {})
    made.facts, made.reason = {"gpus": [gpu.model_dump() for gpu in gpus]}, ""
    raw = {
        "utilisation": 1.0, "power": 1.0, "power_limit": 70.0, "temperature": 1.0, "clock": 900.0,
        "memory_clock": 1.0, "throttle": [], "processes": [[4242, 5]], "processes_reason": "",
        "reasons": {}, "total": 9,
    }  # fmt: skip
    rows = [{**raw, "index": row, "used": size} for row, size in enumerate(used)]
    made._last = {"t": 0.0, "gpus": rows}
    return made


def test_a_run_has_figures_and_neighbours_of_its_own_gpu_alone(monkeypatch) -> None:
    """70 GiB and a neighbour on another card are not this run's."""
    machine = MACHINES["mixed"]
    gpus = listed(monkeypatch, machine)
    monkeypatch.setattr(telemetry, "is_initial_pid_namespace", lambda *_: True)
    attempt = AttemptGpus(spec(), watch := watch_of(gpus, 4, 70, 70, 70, 70, 70, 70, 70), {})
    unnamed, reason = attempt.read([1])
    assert (unnamed, attempt.count_foreign_processes([1])) == ((), 0)
    assert "not said yet" in reason
    uuid = machine.gpus[0].uuid.removeprefix("GPU-")
    attempt.receive(m.Hello(engine="e", pid=1, device="Tesla T4", gpus=[{"uuid": uuid}]))
    read, _ = attempt.read([1])
    assert [(gpu.index, gpu.used) for gpu in read] == [(0, 4)]
    assert attempt.count_foreign_processes([1]) == 1
    watch._last["gpus"][0]["processes"] = []
    assert attempt.count_foreign_processes([1]) == 0, "those on other cards do not slow this one"
    attempt.receive(m.Hello(engine="e", pid=1, device="X", gpus=[{"uuid": "77"}]))
    assert attempt.read([1]) == ((), "NVML lists no GPU 77, which the engine uses")


@pytest.mark.parametrize(
    ("fields", "hello", "reason"),
    [
        ({}, {"device": "cpu"}, "the run computes on the CPU"),
        ({"cpu": True}, {"device": "cpu"}, "the run computes on the CPU, as asked"),
        ({}, {"device": "Tesla T4"}, "the engine does not say which of 2 GPUs it takes"),
        ({"devices": (1,)}, {"device": "Tesla T4"}, ""),
    ],
)
def test_figures_have_a_gpu_or_a_reason(monkeypatch, fields, hello, reason: str) -> None:
    gpus = listed(monkeypatch, MACHINES["kaggle"])
    attempt = AttemptGpus(spec(**fields), watch_of(gpus, 1, 2), {})
    attempt.receive(m.Hello(engine="e", pid=1, **hello))
    read, said = attempt.read([1])
    assert said == reason
    assert [gpu.used for gpu in read] == ([] if reason else [2])


def test_memory_that_nvml_does_not_count_is_never_zero(monkeypatch) -> None:
    """With --pid=host the pids are ours, and the driver names no process all the same."""
    machine = replace(MACHINES["open-module"], initial_pid_namespace=True)
    gpus = listed(monkeypatch, machine)
    attempt = AttemptGpus(spec(), watch := watch_of(gpus, 7), {})
    watch._last["gpus"][0]["processes"] = []
    attempt.receive(m.Hello(engine="e", pid=1, device="H100"))
    assert attempt.read([1])[0][0].process == 0
    attempt.receive(m.Memory(phase="load", vram_reserved_peak=1 << 30))
    ((gpu,), _) = attempt.read([1])
    assert (gpu.process, "torch has some" in gpu.reasons["process"]) == (None, True)


def test_throttling_is_told_with_reason_and_share_of_the_computing_time(monkeypatch) -> None:
    gpus = listed(monkeypatch, MACHINES["t4"])
    attempt = AttemptGpus(spec(), watch := watch_of(gpus, 7), {})
    attempt.receive(m.Hello(engine="e", pid=1, device="Tesla T4"))

    def sample(times: int, *reasons: str) -> None:
        for _ in range(times):
            watch._last["gpus"][0]["throttle"] = list(reasons)
            attempt.read([1])

    sample(50, "power limit")  # before anything is timed
    attempt.receive(m.Phase(name="train"))
    sample(100)
    assert attempt.notices(1.0) == []
    sample(90, "power limit")
    sample(10, "power limit", "temperature (driver)")
    (notice,) = attempt.notices(9.0)
    assert (notice.code, notice.t) == ("throttled", 9.0)
    assert notice.text == (
        "the clocks of GPU 0 were held down in 50% of 200 samples while it computed: power limit "
        "in 50%, temperature (driver) in 5% (900 MHz on average, power limit 70 W)"
    )
    watch._last["gpus"][0]["throttle"] = None
    attempt.read([1])
    assert "of 200 samples" in attempt.notices(9.0)[0].text, "a reading without it counts nothing"


def test_a_torch_without_a_property_leaves_it_empty(monkeypatch) -> None:
    bare = SimpleNamespace(name="X", major=8, minor=0, total_memory=5)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: bare)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1, 4))
    (named,) = device.identify_gpus(torch.device("cuda"))
    assert (named.uuid, named.pci_bus_id, named.memory_bytes) == ("", "", 4)
    assert gpu_selection.match_engine_gpus([named], gpu_selection.VisibleGpus(), ()).reason
