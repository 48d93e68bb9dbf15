"""From a plan to a running suite: the steps of `workbench run` and `workbench search`, in order.

1. `prepare_runs`: check devices, resolve trained models, apply automatic settings, expand the plan,
   check the GPU, audit, check memory. Nothing is written.
2. `start_suite`: check the surroundings, build subsets, create the suite, start its warden.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import typer

from workbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from engines.protocol import Device, RunSpec
    from workbench.headless.renderers import OutputMode
    from workbench.memory_estimate.memory_check import TargetDevice
    from workbench.planning.plan import SuitePlan
    from workbench.supervisor.warden_options import WardenOptions


NOTHING_TO_SEARCH: Final = (
    "nothing to search: give --range KEY=LOW..HIGH and --metric NAME, or a plan with [search]"
)


class PreparedRuns(NamedTuple):
    """A plan that can run here."""

    suite_plan: SuitePlan
    """With full names of trained models and automatic settings."""
    specs: list[RunSpec]
    remarks: list[str]
    """Automatic settings, what is known of GPU and memory, faults: lines for a person."""


def load_plan(
    plan_file: Path | None,
    preset: str | None,
    flags: dict[str, Any],
    settings: list[str] | None,
    *,
    cpu: bool = False,
) -> SuitePlan:
    """The plan of a file or a preset, overridden by flags (fields of a plan) and `--set`.

    Empty flags count as not given. `cpu`: use no GPU, whatever the plan names; a GPU among
    the flags overrides `cpu = true` of the plan.

    Raises:
        PlanError: both a file and a preset are given, or nothing to run, or conflicting flags.
    """
    from workbench.cli import set_options
    from workbench.planning import plan

    if plan_file and preset:
        raise plan.PlanError(["give a plan file or --preset, not both"])
    flags = {name: value for name, value in flags.items() if value not in (None, "", [], {})}
    if cpu and "devices" in flags:
        raise plan.PlanError(["give --device or --cpu, not both"])
    flags |= {"cpu": True, "devices": []} if cpu else {}
    flags |= {"cpu": False} if "devices" in flags and not cpu else {}
    table: dict[str, Any] = {}
    if plan_file:
        table = _stated_fields(plan.load(plan_file))
    elif preset:
        table = _stated_fields(plan.load_preset(preset))
    elif "subsets" not in flags or "models" not in flags:
        raise plan.PlanError(
            ["nothing to run: give a plan file, --preset NAME, or at least -d SUBSET and -m MODEL"]
        )
    set_settings = set_options.parse_settings(settings or ())
    merged = {**table, **flags}
    if "search" in flags:  # its flags override single keys
        plan_search = table.get("search") or {}
        ranges = {**plan_search.get("ranges", {}), **flags["search"].get("ranges", {})}
        merged["search"] = {**plan_search, **flags["search"], "ranges": ranges}
    all_settings = {**table.get("settings", {}), **set_settings}
    merged["settings"] = {name: value for name, value in all_settings.items() if value is not None}
    return plan.parse(merged, "flags" if not table else str(plan_file or f"preset {preset}"))


def _stated_fields(suite_plan: SuitePlan) -> dict[str, Any]:
    """The table of a plan without what it leaves open: an engine may follow from its models."""
    table: dict[str, Any] = suite_plan.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return table


def prepare_runs(
    suite_plan: SuitePlan, set_options: Sequence[str], log_root: Path, *, force: bool
) -> PreparedRuns:
    """Check a plan and expand it into runs; `force`: GPU and memory problems become remarks.

    Raises:
        PlanError: the plan is wrong or refuses a fault of its audit, or its device does not exist
            here, cannot run it or is too small.
    """
    from workbench import paths
    from workbench.audit import audit
    from workbench.planning import expand

    suite_plan, device = resolve_plan(suite_plan, log_root)
    suite_plan = apply_automatic_settings(suite_plan, set_options, device)
    specs = expand.expand(suite_plan, paths.cache_root(), log_root)
    remarks = [
        f"{key} = {suite_plan.settings.get(key)}, {origin}"
        for key, origin in suite_plan.origins.items()
    ]
    remarks += check_gpu(specs, device, force=force)
    remarks += audit.check_start(suite_plan, specs, device)
    specs, memory_remarks = check_memory(specs, device, force=force)
    return PreparedRuns(suite_plan, specs, [*remarks, *memory_remarks])


def leave_out_done(prepared: PreparedRuns, log_root: Path) -> PreparedRuns:
    """The runs without those that the log root has completed with equal settings; each has a
    remark.

    Raises:
        NewerSchemaError, OSError: results.jsonl cannot be read.
    """
    from workbench.planning import done_runs

    done = done_runs.find_done_runs(prepared.specs, log_root)
    remarks = [f"{run_id} is done: {r.identity.suite}" for run_id, r in done.items()]
    specs = [spec for spec in prepared.specs if spec.run_id not in done]
    return PreparedRuns(prepared.suite_plan, specs, [*prepared.remarks, *remarks])


def prepare_search(suite_plan: SuitePlan, log_root: Path) -> PreparedRuns:
    """As `prepare_runs`, without what depends on a trial's settings: automatic ones and memory.

    Raises:
        PlanError: as `prepare_runs`, or the plan has no `[search]`.
    """
    from workbench import paths
    from workbench.audit import audit
    from workbench.planning import expand, plan

    if suite_plan.search is None:
        raise plan.PlanError([NOTHING_TO_SEARCH])
    suite_plan, device = resolve_plan(suite_plan, log_root)
    specs = expand.expand(suite_plan, paths.cache_root(), log_root)
    check_gpu(specs, device, force=False)
    return PreparedRuns(suite_plan, specs, audit.check_start(suite_plan, specs, device))


def resolve_plan(suite_plan: SuitePlan, log_root: Path) -> tuple[SuitePlan, TargetDevice]:
    """The plan with full names of trained models, and its device, which exists here."""
    from workbench.memory_estimate import memory_check
    from workbench.planning import plan

    check_devices(suite_plan)
    device = memory_check.locate_device(
        suite_plan.gpu, _named_devices(suite_plan), cpu=suite_plan.cpu
    )
    return plan.resolve_model_names(suite_plan, log_root), device


def start_suite(  # noqa: PLR0913 - one parameter for each choice of the command
    suite_plan: SuitePlan, specs: list[RunSpec], log_root: Path, mode: OutputMode,
    *, detach: bool, options: WardenOptions, interval: float | None = None,
) -> NoReturn:  # fmt: skip
    """Create the suite's folder and start its warden; ends the command.

    `interval`: seconds between two lines of progress; None: growing ones.

    Raises:
        SuiteError: no suite can run here, or a run needs several nodes.
    """
    from workbench.headless import follow

    folder = create_suite(suite_plan, specs, log_root)
    if detach:
        raise typer.Exit(follow.run_detached(folder, mode, options))
    raise typer.Exit(follow.run_foreground(folder, mode, options, interval))


def create_suite(suite_plan: SuitePlan, specs: list[RunSpec], log_root: Path) -> Path:
    """Build strict subsets, and create the suite's folder.

    Raises:
        SuiteError: no suite can run here, or a run needs several nodes.
    """
    from engines import catalog
    from workbench.cli import build
    from workbench.suites import suite

    check_surroundings(log_root)
    if (count := max(map(catalog.count_nodes, specs), default=1)) > 1:
        raise suite.SuiteError(
            f"nnodes = {count}: `workbench submit` runs it in a job of Slurm with as many nodes; "
            "here set nnodes to 1"
        )
    if not build.build_strict_subsets(specs):
        raise typer.Exit(ExitCode.USAGE)
    return suite.create_suite(log_root, suite_plan, specs)


def make_options(
    log_root: Path, *, share: bool, time_limit: float | None, after: str | None
) -> WardenOptions:
    """Options of the warden of a new suite; `after`: name, or a part of it, of the suite that is
    to end first.

    Raises:
        SuiteError: there is no such suite, or several fit.
    """
    from workbench.suites import suite
    from workbench.supervisor.warden_options import WardenOptions

    ahead = str(suite.find_suite(log_root, after)) if after else ""
    return WardenOptions(share, time_limit=time_limit or math.inf, after=ahead)


def check_detach() -> None:
    """Refuse a detached suite inside a Slurm job.

    Raises:
        SuiteError: this is a job; a warden that leaves it is killed with it, or outlives it
            without an allocation.
    """
    from workbench.slurm import commands
    from workbench.suites import suite

    if job := commands.job_name(os.environ):
        raise suite.SuiteError(
            f"--detach inside Slurm job {job}: the job's end would kill the suite, or leave it "
            "running without an allocation; leave --detach out, or use `workbench submit`"
        )


def check_devices(suite_plan: SuitePlan) -> None:
    """Check /proc and the GPUs of the plan.

    Raises:
        PlanError: /proc is unusable, or a GPU of the plan does not exist here.
    """
    from workbench.planning import plan
    from workbench.suites import preflight

    if problems := list(preflight.check_proc()):  # the memory estimate reads it
        raise plan.PlanError(problems)
    if missing := find_device_problem(_named_devices(suite_plan)):
        raise plan.PlanError([missing])


def find_device_problem(devices: Sequence[Device], nodes: Path = Path("/dev")) -> str | None:
    """Why a GPU of a plan does not exist here, by the device nodes; None: it may exist.

    None also where another kernel holds the GPU (`dxg`): there are no nodes to count then.
    """
    count = len(list(nodes.glob("nvidia[0-9]*")))
    missing = [gpu for gpu in devices if not count or (isinstance(gpu, int) and gpu >= count)]
    if not missing or (nodes / "dxg").exists():
        return None
    available = "no GPU" if not count else f"{count} GPU" if count == 1 else f"{count} GPUs"
    remedy = "name none, or give --cpu" if not count else f"indexes go from 0 to {count - 1}"
    return f"device {missing[0]}: this machine has {available}; {remedy}"


def _named_devices(suite_plan: SuitePlan) -> tuple[Device, ...]:
    """GPUs that the plan names: those of its lanes, else its devices."""
    return suite_plan.lanes if isinstance(suite_plan.lanes, tuple) else suite_plan.devices


def apply_automatic_settings(
    suite_plan: SuitePlan, set_options: Sequence[str], device: TargetDevice
) -> SuitePlan:
    """The plan with settings from the environment and the GPU preset, where `--set` has none."""
    from workbench.cli.set_options import parse_settings
    from workbench.memory_estimate import automatic_settings
    from workbench.memory_estimate.gpus import GpuModel

    gpu = device if isinstance(device, GpuModel) else None
    flags = parse_settings(set_options)
    return automatic_settings.apply_automatic_settings(suite_plan, flags, gpu, os.environ)


def check_gpu(specs: list[RunSpec], device: TargetDevice, *, force: bool) -> list[str]:
    """Check driver, torch's build and precision against the GPU; with `force`: the problems.

    Raises:
        PlanError: they exclude the GPU.
    """
    from workbench.memory_estimate import memory_check
    from workbench.planning import plan

    problems = list(dict.fromkeys(memory_check.find_gpu_problems(specs, device)))
    if problems and not force:
        raise plan.PlanError(problems)
    return problems


def check_memory(
    specs: list[RunSpec], device: TargetDevice, *, force: bool
) -> tuple[list[RunSpec], list[str]]:
    """The specs with their memory estimates, and remarks.

    Raises:
        PlanError: a run does not fit into the device.
    """
    from workbench import paths
    from workbench.memory_estimate import estimator_process, memory_check

    if isinstance(device, memory_check.UnknownDevice):
        return specs, [f"memory forecast: n/a ({device.reason})"]
    with estimator_process.share_process(print_progress):
        return memory_check.check_memory(specs, device, paths.cache_root(), force=force)


def check_surroundings(log_root: Path) -> None:
    """Check interpreter, /proc, limits, folders and records (`preflight.check_surroundings`).

    Raises:
        SuiteError: no suite can run here; one sentence a line.
    """
    from workbench.suites import preflight, suite

    if problems := preflight.check_surroundings(log_root):
        raise suite.SuiteError("\n".join(problems))


def print_progress(text: str) -> None:
    """Print a progress message to stderr."""
    from results.text.sanitize import clean_line

    typer.echo(f"workbench: {clean_line(text)}", err=True)
