"""Costs of a plan's runs and the state of this machine; reads files and so runs in a thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.pricing import costs
from workbench.pricing.earlier import EarlierRun

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.memory_estimate.memory_check import TargetDevice
    from workbench.planning.plan import SuitePlan

NEWEST_PLANS = 100
"""Number of suites that are searched for an equal plan."""


def price_runs(
    specs: Sequence[RunSpec], cache_root: Path, runs: Sequence[EarlierRun], device: TargetDevice
) -> list[costs.RunCost]:
    """The costs of each run, from earlier runs and from memory estimates that are known."""
    from workbench.planning import done_runs

    done = {run.key: run for run in runs}
    equal = {
        spec.run_id: run
        for spec in specs
        if not (spec.probe or done_runs.uses_own_model(spec))
        and (run := done.get(done_runs.spec_key(spec)))
    }
    needed = done_runs.collect_needed(specs, equal)
    rows: dict[str, int | None] = {}
    costs_of_work: dict[str, costs.RunCost] = {}
    priced = []
    for spec in specs:
        unseeded = spec.model_copy(update={"seed": 0, "repeat": 0})
        work = done_runs.spec_key(unseeded)  # seeds and repeats cost the same
        if work not in costs_of_work:
            costs_of_work[work] = _price_run(spec, cache_root, runs, device, rows)
        same = None if spec.run_id in needed else equal.get(spec.run_id)
        cost = costs_of_work[work]
        if same is not None:
            cost = replace(cost, done=same.suite, done_wall=same.started_wall)
        priced.append(cost)
    return priced


def _price_run(
    spec: RunSpec,
    cache_root: Path,
    runs: Sequence[EarlierRun],
    device: TargetDevice,
    rows: dict[str, int | None],
) -> costs.RunCost:
    steps = _count_steps(spec, cache_root, rows)
    if spec.probe:
        most = spec.probe.steps + int(spec.params.get("timing_warmup_steps") or 0)
        steps = min(steps or most, most)
    alike = costs.select_earlier(spec, runs)
    same = [run for run in alike if not costs.list_other_sizes(run, spec.params)]
    peaks = [run.memory for run in same if run.memory is not None]
    memory, source = (max(peaks), "measured") if peaks else _estimate(spec, device, cache_root)
    return costs.RunCost(
        steps=steps,
        time=costs.estimate_time(steps, spec.params, spec.subset, alike),
        memory=memory,
        memory_source=source,
        disk=max((run.disk for run in alike), default=None),
    )


def _count_steps(spec: RunSpec, cache_root: Path, rows: dict[str, int | None]) -> int | None:
    from workbench.memory_estimate import plan_estimate

    if spec.task not in ("train", "probe") or "batch" not in spec.params:
        return None
    if spec.subset not in rows:
        rows[spec.subset] = plan_estimate.count_rows(spec.subset, cache_root)
    count = rows[spec.subset]
    if count is None:
        return None
    if stages := plan_estimate.count_stage_steps(spec.params, count):
        return sum(stage.total for stage in stages.values())
    return plan_estimate.count_steps(spec.params, count).total


def _estimate(spec: RunSpec, device: TargetDevice, cache_root: Path) -> tuple[int | None, str]:
    """(bytes, `estimated`) if an estimate of these sizes was computed before."""
    from workbench.memory_estimate import estimator_process, fit_check, memory_check

    if isinstance(device, memory_check.UnknownDevice) or spec.task == "ensemble":
        return None, ""
    if spec.engine not in memory_check.ESTIMABLE_ENGINES:
        return None, ""
    query = memory_check.build_query(spec, device)
    estimate = estimator_process.cached_estimate(query, cache_root)
    if estimate is None or estimate.problem:
        return None, ""
    return fit_check.peak_phase(estimate, device).total, "estimated"


def find_gpu_memory(spec: RunSpec, runs: Sequence[EarlierRun]) -> int | None:
    """Largest peak of VRAM of earlier runs with the same sizes; None: none was on a GPU."""
    alike = costs.select_earlier(spec, runs)
    same = [run for run in alike if not costs.list_other_sizes(run, spec.params)]
    return max((run.memory for run in same if run.on_gpu and run.memory), default=None)


def find_device(suite_plan: SuitePlan) -> TargetDevice:
    """The device of the plan's runs."""
    from workbench.memory_estimate import memory_check
    from workbench.planning.plan import PlanError

    try:
        return memory_check.locate_device(suite_plan.gpu, suite_plan.devices, cpu=suite_plan.cpu)
    except PlanError as error:
        return memory_check.UnknownDevice(str(error))


def read_machine(device: TargetDevice, log_root: Path) -> costs.MachineState:
    """Memory, disk and whether another suite holds a device."""
    from workbench import paths
    from workbench.memory_estimate import memory_check
    from workbench.memory_estimate.gpus import GpuModel
    from workbench.processes import device_locks

    memory = None if isinstance(device, memory_check.UnknownDevice) else device.memory_bytes
    name = device.name if isinstance(device, GpuModel) else "on this host"
    folder = next(p for p in (log_root, *log_root.parents) if p.exists())
    held = [
        lock
        for lock in paths.lock_root().glob("device-*.lock")
        if os.access(lock, os.R_OK) and device_locks.is_held(lock)
    ]
    busy = ""
    if held:
        names = dict.fromkeys(device_locks.read_holder(lock) for lock in held)
        busy = f"busy: it queues behind {', '.join(names)}"
    return costs.MachineState(memory, name, shutil.disk_usage(folder).free, busy)


def find_equal_plan(toml: str, log_root: Path) -> str:
    """Name of the newest suite with an equal plan file; empty: none of the newest has."""
    from workbench.suites import suite

    try:
        folders = suite.list_suites(log_root)[:NEWEST_PLANS]
    except OSError:
        return ""
    for folder in folders:
        try:
            first, _, rest = (folder / "plan.toml").read_text("utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            continue
        if rest == toml and first.startswith("#"):
            return folder.name
    return ""
