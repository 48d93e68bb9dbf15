"""What the engine computes on, and in which precision, on every machine of the catalog."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from engines import catalog, cuda_support, model_catalog
from engines.emitter import Emitter, EngineError
from engines.retrieval import tasks
from engines.retrieval.params import Params
from engines.torchkit.runtime import device, precision
from engines.torchkit.runtime.precision import Precision
from tests.hardware import fakes
from tests.hardware.machines import CATALOG, MACHINES, Machine
from workbench.planning import plan

every = pytest.mark.parametrize("machine", CATALOG, ids=lambda machine: machine.key)
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)

AUTO = {
    "cpu-avx2": "fp32", "cpu-laptop": "fp32", "cpu-avx512": "fp32", "cpu-amx": "bf16",
    "cpu-avx512-bf16": "bf16", "t4": "fp16", "p100-cu126": "fp16", "v100-cu126": "fp16",
    "2080ti": "fp16", "colab": "fp16", "kaggle": "fp16", "old-driver-cu126": "fp16",
    "old-driver-compat": "fp16",
}  # fmt: skip
"""Precision by `auto`; every machine that is not here and not refused takes bf16."""
REFUSED = {
    "p100": "Tesla P100-PCIE-16GB (capability 6.0): torch 2.15.0+cu132 has no kernels for it",
    "v100": "Tesla V100-SXM2-16GB (capability 7.0): torch 2.15.0+cu132 has no kernels for it",
    "old-driver": "The NVIDIA driver on your system is too old",
}


@every
def test_a_gpu_is_used_or_refused_but_never_passed_over(monkeypatch, machine: Machine) -> None:
    fakes.see(monkeypatch, machine)
    if words := REFUSED.get(machine.key):
        with pytest.raises(EngineError) as error:
            device.refuse_unsupported(device.choose_device(()))
        sentence = str(error.value)
        assert words in sentence
        assert "whl/cu126" in sentence
        assert sentence.endswith(("--cpu", "--cpu for the CPU"))
        return
    chosen = device.choose_device(())
    device.refuse_unsupported(chosen)
    assert chosen.type == ("cuda" if machine.gpus else "cpu")
    assert Precision("auto", chosen).name == AUTO.get(machine.key, "bf16")


def test_a_refused_gpu_is_refused_before_the_run_introduces_itself(monkeypatch, spec) -> None:
    fakes.see(monkeypatch, MACHINES["p100"])
    emit = Emitter()
    with pytest.raises(EngineError, match="no kernels"):
        device.send_hello(emit, spec, GPU)
    assert emit.sent == []


@pytest.fixture
def spec():
    from engines.protocol import RunSpec

    return RunSpec(suite="", run_id="01", engine="retrieval", subset="", model="", cache_root="")


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_who_hides_the_gpu_gets_the_cpu(monkeypatch, hidden: str) -> None:
    fakes.see(monkeypatch, MACHINES["h200"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device.choose_device(()) == CPU


def test_a_mistyped_index_is_refused(monkeypatch) -> None:
    fakes.see(monkeypatch, MACHINES["h200"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(EngineError, match=r"a GPU is here, but .*\(No CUDA GPUs are available\)"):
        device.choose_device(())
    with pytest.raises(EngineError, match=r"devices = \[3\], but .*--cpu"):
        device.choose_device((3,))


def test_gpus_are_looked_for_in_dev(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(device, "WSL_DRIVER", tmp_path / "libcuda.so.1")
    (tmp_path / "nvidiactl").touch()
    assert not device.gpu_present(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert device.gpu_present(tmp_path)
    (tmp_path / "nvidia0").unlink()
    (tmp_path / "dxg").touch()
    assert not device.gpu_present(tmp_path), "of another maker"
    (tmp_path / "libcuda.so.1").touch()
    assert device.gpu_present(tmp_path), "WSL has no device files"
    monkeypatch.setattr(device, "KERNEL_MODULE", tmp_path / "version")
    assert device.driver_version() == ""
    (tmp_path / "version").write_text("535.183.01\n")
    assert device.driver_version() == "535.183.01"


# --- precision -----------------------------------------------------------------------------------


def test_auto_is_the_default_of_every_engine_entry_and_preset() -> None:
    for engine in ("retrieval", "captioning", "vqa"):
        assert catalog.load(engine).Params().precision == "auto"
    for name in model_catalog.names():
        entry = model_catalog.load(name)
        parts = [part for part in (entry, entry.vision, entry.llm) if part is not None]
        packages = entry.packages or (entry.llm is not None and entry.llm.packages)
        small = not any(part.hub or part.path for part in parts) and not packages
        # Models that are trained here from scratch have equal scores on every machine.
        assert entry.settings.get("precision", "auto") == ("fp32" if small else "auto"), name
    chosen = {
        name: plan.load_preset(name).settings.get("precision") for name in plan.preset_files()
    }
    assert {name: one for name, one in chosen.items() if one not in (None, "auto")} == {
        "weekly-m2kr": "bf16"
    }


@every
def test_an_explicit_bf16_is_refused_where_the_gpu_lacks_it(monkeypatch, machine: Machine) -> None:
    fakes.see(monkeypatch, machine)
    if not machine.gpus or machine.key in REFUSED:
        return
    name = fakes.visible(machine, machine.environment)[0].name
    if AUTO.get(machine.key) != "fp16":
        assert Precision("bf16", GPU).name == "bf16"
        return
    with pytest.raises(EngineError, match="has no bf16; use fp16 or auto") as error:
        Precision("bf16", GPU)
    assert name in str(error.value)


def test_ranks_on_mixed_cards_agree(monkeypatch) -> None:
    fakes.see(monkeypatch, MACHINES["mixed"])
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,0")  # an RTX 4090 and a T4
    assert Precision("auto", GPU).name == "bf16"
    for rank in range(2):
        assert Precision("auto", torch.device("cuda", rank), ranks=2).name == "fp16"
    with pytest.raises(EngineError, match="has no bf16"):
        Precision("bf16", GPU, ranks=2)


@pytest.mark.parametrize("machine", [one for one in CATALOG if not one.gpus], ids=lambda m: m.key)
@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32"])
def test_a_cpu_that_lacks_a_precision_says_so_with_the_ratio(monkeypatch, machine, name) -> None:
    fakes.see(monkeypatch, machine)
    monkeypatch.setattr(precision, "measured_slowdown", lambda _: 5.96)
    found = Precision(name, CPU)
    lacks = name == "fp16" or (name == "bf16" and AUTO[machine.key] == "fp32")
    assert found.name == name, "what was asked for is what is computed"
    expected = f"precision = {name}: this CPU does not compute it in hardware; a matrix product "
    expected += "took 6.0 times as long as in fp32; precision = auto takes fp32"
    assert found.emulation_notice() == (expected if lacks else "")
    half = name == "bf16" and not lacks
    assert found.product_dtype == (torch.bfloat16 if half else torch.float32)
    assert found.weight_dtype == torch.float32


def test_4_bit_products_have_the_precision_of_the_gpu(monkeypatch) -> None:
    for key, dtype in (("t4", torch.float16), ("a10g", torch.bfloat16)):
        fakes.see(monkeypatch, MACHINES[key])
        found = Precision("auto", GPU)
        assert (found.product_dtype, found.weight_dtype) == (dtype, dtype)


def test_the_ratio_is_measured_here() -> None:
    threads = torch.get_num_threads()
    assert 0.2 < precision.measured_slowdown("fp32") < 5, "of one and the same product"
    assert precision.measured_slowdown("bf16") > (0 if precision.cpu_supports("bf16") else 1)
    assert torch.get_num_threads() == threads


def test_what_torch_really_reports_is_what_is_asked() -> None:
    """Names of torch's private reports: a version that renames one fails here, not in a run."""
    script = (
        "import torch; from engines.torchkit.runtime import precision as p;"
        "report = torch.ops.mkldnn._is_mkldnn_bf16_supported();"
        "has = p.cpu_supports;"
        "print(has('bf16') <= report, has('fp16') in (True, False), has('fp32'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"] * 3


@every
def test_a_search_in_bf16_is_refused_where_the_gpu_lacks_it(monkeypatch, machine: Machine) -> None:
    fakes.see(monkeypatch, machine)
    target = device.choose_device(()) if machine.key not in REFUSED else CPU
    bf16, faiss = Params(search_precision="bf16"), Params(search="faiss-flat")
    tasks.refuse_unsupported(faiss.model_copy(update={"search_precision": "bf16"}), target)
    tasks.refuse_unsupported(Params(search_precision="fp16"), target)
    if target.type == "cuda" and AUTO.get(machine.key) == "fp16":
        with pytest.raises(EngineError, match="search_precision = bf16: .* has no bf16; use fp16"):
            tasks.refuse_unsupported(bf16, target)
    else:
        tasks.refuse_unsupported(bf16, target)


# --- drivers and kernels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), ("sm_75", "sm_80"), True),
        ((7, 0), ("sm_75", "sm_80"), False),
        ((8, 9), ("sm_80", "sm_90"), True),  # Ada runs code for Ampere
        ((8, 0), ("sm_86",), False),  # not the other way round
        ((9, 0), ("sm_86",), False),
        ((12, 1), ("sm_120",), True),
        ((13, 0), ("sm_120",), False),
        ((13, 0), ("sm_120", "compute_120"), True),  # PTX is compiled for what comes later
        ((9, 0), ("sm_90a",), True),
        ((10, 0), ("compute_90a",), False),
        ((7, 0), (), True),
        ((9, 4), ("gfx942",), True),  # AMD
    ],
)
def test_kernels_run_by_nvidias_rules(capability, architectures, runs: bool) -> None:
    assert cuda_support.has_kernels(capability, architectures) is runs


def test_an_old_driver_gets_the_driver_and_the_wheel_that_would_do() -> None:
    assert cuda_support.driver_problem("13.2", "580.65.06") == ""
    assert cuda_support.driver_problem("12.6", "535.183.01") == ""
    sentence = cuda_support.driver_problem("13.2", "535.183.01")
    assert "update the driver to 580 or later" in sentence
    assert "whl/cu126" in sentence
    assert "whl/cu128" in cuda_support.driver_problem("13.2", "570.86.15", (12, 0)), "Blackwell"
    assert "install" not in cuda_support.driver_problem("12.8", "470.1"), "no build is old enough"
    assert cuda_support.driver_problem("13.2", "535.1", supported=(13, 0)) == "", (
        "compatibility library"
    )
    assert cuda_support.driver_problem("13.2", "535.1", supported=(12, 2))
    assert cuda_support.driver_problem("", "535.1") == cuda_support.driver_problem("13.2", "") == ""


def test_a_card_gets_the_wheel_that_has_kernels_for_it() -> None:
    assert cuda_support.card_problem("13.2", "Tesla T4", (7, 5)) == ""
    assert "whl/cu126" in cuda_support.card_problem("13.2", "Tesla P100", (6, 0))
    assert "whl/cu128" in cuda_support.card_problem("12.6", "RTX 5090", (12, 0), "570.86.15")
    assert cuda_support.card_problem("12.6", "RTX 5090", (12, 0), "580.1").endswith(
        "torch torchvision"
    )
    assert "take another GPU" in cuda_support.card_problem("13.2", "Tesla K80", (3, 7))
    assert cuda_support.card_problem("", "Tesla K80", (3, 7)) == ""


@every
def test_the_tables_agree_with_the_kernels_of_the_builds(machine: Machine) -> None:
    for gpu in machine.gpus:
        build = machine.torch
        runs = cuda_support.has_kernels(gpu.capability, build.architectures)
        assert (cuda_support.card_problem(build.cuda, gpu.name, gpu.capability) == "") is runs
