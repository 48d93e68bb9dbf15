"""The harness itself: what the fakes say is what the catalog says, by CUDA's and NVML's rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.fixtures.nvml.state import build_library, make_state
from tests.fixtures.wardens import ROOT
from tests.hardware import fakes
from tests.hardware.machines import CATALOG, MACHINES, MIB, Machine

every = pytest.mark.parametrize("machine", CATALOG, ids=lambda machine: machine.key)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


def test_keys_are_names_and_cards_have_identities() -> None:
    assert len(MACHINES) == len(CATALOG)
    for machine in CATALOG:
        identities = [(gpu.uuid, gpu.bus) for gpu in machine.gpus]
        assert len(set(identities)) == len(identities)
        assert all(uuid and bus for uuid, bus in identities)
        assert [bus for _, bus in identities] == sorted(bus for _, bus in identities)
        assert all(gpu.torch_mib < gpu.nvml_mib for gpu in machine.gpus)


@every
def test_the_samplers_facts_are_the_catalogs(monkeypatch, machine: Machine) -> None:
    facts = fakes.facts_of(monkeypatch, machine)
    if not machine.gpus:
        assert facts == {}
        return
    assert (facts["driver"], facts["library"]) == (machine.driver, machine.library)
    units = [(gpu, part) for gpu in machine.gpus for part in (gpu.slices or (None,))]
    for row, (gpu, part) in zip(facts["gpus"], units, strict=True):
        assert tuple(row["capability"]) == gpu.capability
        one = fakes.Visible(gpu, part)
        assert (row["name"], row["uuid"], row["pci_bus_id"]) == (one.name, one.uuid, gpu.bus)
        assert row["memory_bytes"] == (part.mib if part else gpu.nvml_mib) * MIB
        assert row["parent_uuid"] == (gpu.uuid if part else "")


def test_the_compiled_stub_says_the_same(library: Path, tmp_path: Path, monkeypatch) -> None:
    for machine in (MACHINES["mixed"], MACHINES["h100-mig"], MACHINES["t4"]):
        fakes.fill(state := make_state(tmp_path / machine.key, 0), machine)
        state.init_us = 0
        done = subprocess.run(
            [sys.executable, "-m", "workbench.telemetry.sampler", "--once"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(library.parent),
                 "NVML_STUB_STATE": str(tmp_path / machine.key)},
            capture_output=True, text=True, check=True, timeout=180,
        )  # fmt: skip
        compiled = json.loads(done.stdout.splitlines()[0])["facts"]
        with monkeypatch.context() as patch:
            faked = json.loads(json.dumps(fakes.facts_of(patch, machine)))
        for key in ("driver", "cuda", "gpus"):
            assert compiled[key] == faked[key], machine.key


@every
def test_cuda_shows_what_the_driver_and_the_environment_allow(monkeypatch, machine) -> None:
    fakes.see(monkeypatch, machine)
    old = machine.key == "old-driver"
    assert torch.cuda.is_available() == (bool(machine.gpus) and not old)
    assert torch.cuda.get_arch_list() == list(machine.torch.architectures)
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() == machine.cpu.bf16
    assert torch.cpu._is_amx_tile_supported() == ("amx_tile" in machine.cpu.flags)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="too old" if old else "Found no NVIDIA driver"):
            torch.cuda.init()
        return
    torch.cuda.init()
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        assert (found.major, found.minor) == torch.cuda.get_device_capability(index)
        assert found.total_memory == torch.cuda.mem_get_info(index)[1]
        assert "-" in str(found.uuid)
        assert not str(found.uuid).startswith(("GPU", "MIG"))


def names(machine: Machine, **environment: str) -> list[str]:
    return [one.name for one in fakes.visible(machine, environment)]


def test_cuda_counts_fastest_first_unless_told_otherwise() -> None:
    mixed = MACHINES["mixed"]
    first, second, *_ = names(mixed)
    assert (first, second) == ("NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-40GB")
    by_bus = names(mixed, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert by_bus == [gpu.name for gpu in mixed.gpus]
    assert sorted(names(mixed)) == sorted(by_bus)


@pytest.mark.parametrize(
    ("variable", "shown"),
    [("0,2", [0, 2]), ("1,-1,0", [1]), ("0,9,1", [0]), ("", []), ("GPU-00000003", [3]),
     ("2,GPU-00000001", [2, 1]), ("NoDevFiles", []), ("GPU-0", [])],
)  # fmt: skip
def test_visible_devices_end_at_the_first_that_is_none(variable: str, shown: list[int]) -> None:
    mixed = MACHINES["mixed"]
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": variable}
    found = fakes.visible(mixed, environment)
    assert [one.uuid for one in found] == [mixed.gpus[index].uuid for index in shown]


def test_a_process_sees_one_slice_at_most() -> None:
    machine = MACHINES["h100-mig"]
    (only,) = fakes.visible(machine, {})
    assert (only.name, only.memory_bytes) == ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40_448 * MIB)
    (chosen,) = fakes.visible(machine, MACHINES["h100-mig-slice"].environment)
    assert (chosen.uuid, chosen.memory_bytes) == (machine.gpus[0].slices[1].uuid, 9_984 * MIB)
