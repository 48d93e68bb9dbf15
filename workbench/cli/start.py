"""Checks, expansion and start of a suite, shared by `workbench run` and `workbench search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from workbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.headless.renderers import OutputMode
    from workbench.planning.plan import SuitePlan


def check_devices(suite_plan: SuitePlan) -> None:
    """Check /proc and the GPU indexes of the plan.

    Raises:
        PlanError: /proc is unusable, or a GPU of the plan does not exist here.
    """
    from workbench.planning import availability, plan
    from workbench.suites import preflight

    if problems := list(preflight.check_proc()):  # the memory estimate reads it
        raise plan.PlanError(problems)
    if missing := availability.find_device_problem(suite_plan.devices):
        raise plan.PlanError([missing])


def expand_plan(suite_plan: SuitePlan, log_root: Path) -> tuple[SuitePlan, list[RunSpec]]:
    """The plan with full names of trained models, and its runs.

    Raises:
        PlanError: the plan is wrong, or its device does not exist here or cannot run it.
    """
    from workbench import paths
    from workbench.planning import plan

    check_devices(suite_plan)
    suite_plan = plan.resolve_model_names(suite_plan, log_root)
    specs = plan.expand(suite_plan, paths.cache_root(), log_root)
    check_gpu(suite_plan, specs)
    return suite_plan, specs


def check_gpu(suite_plan: SuitePlan, specs: list[RunSpec]) -> None:
    """Check the GPU of the runs.

    Raises:
        PlanError: driver, torch's build or precision exclude it.
    """
    from workbench.memory_estimate import estimate, gpu_support
    from workbench.planning import plan

    device = estimate.locate_device(suite_plan.gpu, suite_plan.devices, cpu=suite_plan.cpu)
    if problems := list(dict.fromkeys(gpu_support.find_problems(specs, device))):
        raise plan.PlanError(problems)


def check_surroundings(log_root: Path) -> None:
    """Check interpreter, /proc, limits, folders and records (`preflight.check_surroundings`).

    Raises:
        SuiteError: no suite can run here; one sentence a line.
    """
    from workbench.suites import preflight, suite

    if problems := preflight.check_surroundings(log_root):
        raise suite.SuiteError("\n".join(problems))


def start_suite(
    suite_plan: SuitePlan, specs: list[RunSpec], log_root: Path | None, mode: OutputMode,
    *, detach: bool, share: bool,
) -> NoReturn:  # fmt: skip
    """Build strict subsets, create the suite's folder, and start its warden; ends the command."""
    from workbench import paths
    from workbench.cli import catalogs
    from workbench.headless import follow
    from workbench.suites import suite

    check_surroundings(paths.log_root(log_root))
    if not catalogs.build_strict_subsets(specs):
        raise typer.Exit(ExitCode.USAGE)
    folder = suite.create_suite(paths.log_root(log_root), suite_plan, specs)
    follow_suite = follow.run_detached if detach else follow.run_foreground
    raise typer.Exit(follow_suite(folder, mode, share=share))
