"""Before a run starts: driver, kernels and precision against the GPU that will be used."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from engines.memory_query import MemoryEstimate, MemoryQuery
from engines.protocol import RunSpec
from tests.hardware import fakes
from tests.hardware.machines import CATALOG, MACHINES, MIB, Gpu, Machine, replace
from workbench import paths
from workbench.cli import start
from workbench.memory_estimate import (
    estimator_process,
    gpus,
    memory_check,
    torch_build,
)
from workbench.memory_estimate.fit_check import HostMemory
from workbench.memory_estimate.gpus import GIB
from workbench.planning import plan
from workbench.processes import engine_process
from workbench.telemetry import nvml

every = pytest.mark.parametrize("machine", CATALOG, ids=lambda machine: machine.key)


def see(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """The machine as the workbench sees it; the sampler's child answers from this process."""
    fakes.see_driver(monkeypatch, machine)
    monkeypatch.setattr(
        gpus, "query_nvml", lambda: nvml.Nvml.open().facts() if machine.gpus else {}
    )
    monkeypatch.setattr(memory_check, "is_library_present", lambda: bool(machine.gpus))
    monkeypatch.setattr(torch_build, "cuda_version", lambda _: machine.torch.cuda)


def spec(**params) -> RunSpec:
    return RunSpec(
        suite="", run_id="01", engine="retrieval", subset="", model="", cache_root="", params=params
    )


REFUSED = {"p100": "has no kernels", "v100": "has no kernels", "old-driver": "too old"}


@every
def test_what_cannot_run_is_refused_before_it_starts(monkeypatch, machine: Machine) -> None:
    see(monkeypatch, machine)
    problems = memory_check.find_gpu_problems(
        [spec(precision="auto")], memory_check.locate_device("", (), cpu=False)
    )
    assert [REFUSED.get(machine.key, "-") in one for one in problems] == [True] * (
        machine.key in REFUSED
    )
    for problem in problems:
        assert "whl/cu126" in problem
        assert problem.endswith("; or give --cpu")
    assert (
        memory_check.find_gpu_problems(
            [spec(precision="bf16")], memory_check.locate_device("", (), cpu=True)
        )
        == []
    )


@every
def test_an_explicit_bf16_is_refused_before_it_starts(monkeypatch, machine: Machine) -> None:
    see(monkeypatch, machine)
    slices = machine.gpus[0].slices if machine.gpus else ()
    gpu = memory_check.locate_device("", (slices[1].uuid if slices else 0,), cpu=False)
    runs = [spec(precision="bf16", search_precision="bf16"), spec(precision="fp16")]
    problems = [
        one for one in memory_check.find_gpu_problems(runs, gpu) if one.startswith("run 01: ")
    ]
    if not machine.gpus or machine.gpus[0].capability >= (8, 0):
        assert problems == []
        return
    name = machine.gpus[0].name
    assert problems == [
        f"run 01: precision = bf16: {name} has no bf16; use fp16 or auto, as --set precision=fp16",
        f"run 01: search_precision = bf16: {name} has no bf16; use fp16 or fp32, as --set "
        "search_precision=fp16",
    ]


def test_the_weekly_preset_on_a_t4_is_refused_in_one_sentence(monkeypatch) -> None:
    see(monkeypatch, MACHINES["t4"])
    weekly = plan.load_preset("weekly-m2kr")
    assert weekly.settings["precision"] == "bf16", "the users fixed it"
    problems = memory_check.find_gpu_problems(
        [spec(**weekly.settings)], memory_check.locate_device("", (0,), cpu=False)
    )
    assert len(problems) == 1
    assert "Tesla T4 has no bf16; use fp16 or auto" in problems[0]


@pytest.fixture
def answers(monkeypatch, tmp_path):
    need = MemoryEstimate(phases={"train": {"all": GIB}})
    monkeypatch.setattr(estimator_process, "run_estimator", lambda wants: [need] * len(wants))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_run_refuses_and_with_force_only_says_it(monkeypatch, answers) -> None:
    see(monkeypatch, MACHINES["old-driver"])
    demo = plan.load_preset("demo")
    with pytest.raises(plan.PlanError, match=r"driver 535\.183\.01 is too old for torch"):
        start.prepare_runs(demo, (), paths.log_root(None), force=False)
    _, specs, lines = start.prepare_runs(demo, (), paths.log_root(None), force=True)
    assert specs
    assert [line for line in lines if "is too old" in line]
    on_cpu = demo.model_copy(update={"cpu": True})
    _, specs, lines = start.prepare_runs(on_cpu, (), paths.log_root(None), force=False)
    assert specs
    assert not [line for line in lines if "is too old" in line]


def test_a_search_is_refused_as_a_run_is(monkeypatch, answers) -> None:
    from workbench.cli.main import app

    see(monkeypatch, MACHINES["old-driver"])
    command = ["search", "--preset", "demo-search", "--dry-run"]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, plan.PlanError)
    assert "is too old for torch" in str(refused.exception)
    assert CliRunner().invoke(app, [*command, "--cpu"]).exit_code == 0


def test_plan_says_it_of_a_gpu_by_name(monkeypatch, answers) -> None:
    from workbench.cli.main import app

    see(monkeypatch, MACHINES["cpu-avx2"])
    command = ["plan", "-p", "audit-vqa", "--rows", "3887", "--gpu"]
    assert CliRunner().invoke(app, [*command, "T4"]).exit_code == 0
    for name, words in (("V100", "V100 (capability 7.0): torch built for CUDA 13.2 has no kernels"),
                        ("P100", "whl/cu126")):  # fmt: skip
        done = CliRunner().invoke(app, [*command, name])
        assert done.exit_code == 1
        assert words in done.stderr
    done = CliRunner().invoke(app, [*command, "T4", "--set", "precision=bf16"])
    assert done.exit_code == 1
    assert "precision = bf16: T4 has no bf16" in done.stderr


def test_a_build_for_cpus_only_is_named(monkeypatch) -> None:
    see(monkeypatch, MACHINES["t4"])
    monkeypatch.setattr(torch_build, "cuda_version", lambda _: "")
    (problem,) = memory_check.find_gpu_problems(
        [spec()], memory_check.locate_device("", (), cpu=False)
    )
    assert problem.startswith("torch was built for CPUs only and cannot use Tesla T4; install")


# --- capability ----------------------------------------------------------------------------------


@every
def test_no_capability_is_assumed(monkeypatch, machine: Machine) -> None:
    see(monkeypatch, machine)
    answer = gpus.query_nvml()
    for info in gpus.list_gpus(answer):
        gpu, card = gpus.gpu_from_nvml(info, answer), machine.gpus[info.card]
        assert gpu.capability == card.capability
        assert gpu.driver == machine.driver
        if not card.slices:
            assert gpu.memory_bytes == pytest.approx(card.torch_mib * MIB, rel=0.025)


@every
def test_the_forecast_is_of_the_gpu_that_the_run_will_use(monkeypatch, machine: Machine) -> None:
    see(monkeypatch, machine)
    listed = gpus.list_gpus(gpus.query_nvml())
    for fields in ({}, {"devices": (0,)}, {"cpu": True}):
        run = spec().model_copy(update=fields)
        if machine.key == "h100-mig" and run.devices:
            with pytest.raises(plan.PlanError, match="device 0: it has 3 MIG slices"):
                memory_check.locate_device("", run.devices, cpu=run.cpu)
            continue
        started = engine_process.engine_environment(machine.environment, run, "t", 1, gpus=listed)
        shown = fakes.visible(machine, started)
        where = memory_check.locate_device("", run.devices, cpu=run.cpu)
        if isinstance(where, memory_check.UnknownDevice):
            assert machine.key in ("mixed-chosen", "h100-mig")
            assert ("MIG" if "mig" in machine.key else "counts different GPUs") in where.reason
        elif isinstance(where, HostMemory):
            assert shown == []
        else:
            assert (where.name, where.capability) == (shown[0].name, shown[0].gpu.capability)
            assert where.memory_bytes == pytest.approx(shown[0].memory_bytes, rel=0.025)
            if shown[0].slice:
                assert where.memory_bytes == shown[0].memory_bytes, "the slice's, not the card's"


UNKNOWN = Gpu("NVIDIA Nobody 9000", (12, 0), 32_768, 32_000)


@pytest.mark.parametrize(
    ("lost", "what"),
    [("nvmlDeviceGetCudaComputeCapability", "compute capability"),
     ("nvmlDeviceGetMemoryInfo", "memory")],
)  # fmt: skip
def test_a_gpu_that_nvml_says_too_little_of_has_no_forecast(monkeypatch, lost, what) -> None:
    card = replace(UNKNOWN, uuid="GPU-1", bus="00000000:04:00.0")
    t4 = replace(MACHINES["t4"].gpus[0], bus="00000000:14:00.0")
    see(monkeypatch, replace(MACHINES["t4"], gpus=(card, t4)))
    assert memory_check.locate_device("", (0,), cpu=False).capability == (12, 0)

    def refuse(*_args, **_named):
        raise fakes.pynvml.NVMLError(fakes.pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(fakes.FakeNvml, lost, refuse)
    where = memory_check.locate_device("", (0,), cpu=False)
    assert where == memory_check.UnknownDevice(
        f"NVML does not tell the {what} of NVIDIA Nobody 9000"
    )
    assert memory_check.find_gpu_problems([spec(precision="bf16")], where) == [], (
        "nothing is assumed"
    )
    if what == "compute capability":
        assert memory_check.locate_device("", (1,), cpu=False).capability == (7, 5), "by the table"


def test_a_run_without_a_forecast_says_why(monkeypatch, answers) -> None:
    see(monkeypatch, MACHINES["mixed-chosen"])
    _, specs, lines = start.prepare_runs(
        plan.load_preset("demo"), (), paths.log_root(None), force=False
    )
    assert [line for line in lines if line.startswith("memory forecast: n/a (CUDA counts differ")]
    assert not any(one.fit for one in specs)


def test_memory_alone_does_not_name_a_gpu() -> None:
    with pytest.raises(plan.PlanError, match=r"give its compute capability too, as 24GiB@8\.6"):
        memory_check.locate_device("24GiB", (), cpu=False)
    assert gpus.find_gpu("24GiB@8.9").capability == (8, 9)
    with pytest.raises(ValueError, match="compute capability"):
        MemoryQuery(engine="vqa", model="m", params={})
    assert MemoryQuery(engine="vqa", model="m", params={}, target="cpu").has_bf16 is False
