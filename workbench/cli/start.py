"""The last steps of every command that starts a suite, the same for `run` and `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from workbench.exit_codes import ExitStatus

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.headless.renderers import Mode
    from workbench.planning.plan import SuitePlan


def check_devices(asked: SuitePlan) -> None:
    """Raise PlanError if the plan names GPUs that are not here, or nothing tells what is here."""
    from workbench.planning import availability, plan
    from workbench.suites import preflight

    if problems := list(preflight.check_proc()):  # memory is forecast from it
        raise plan.PlanError(problems)
    if missing := availability.device_problem(asked.devices):
        raise plan.PlanError([missing])


def expand(asked: SuitePlan, log_root: Path) -> tuple[SuitePlan, list[RunSpec]]:
    """The plan with whole names of trained models, and its runs, if this machine can do them.

    Raises:
        PlanError: the plan is wrong, or a device that it needs is not here or cannot run it.
    """
    from workbench import paths
    from workbench.planning import plan

    check_devices(asked)
    asked = plan.name_models(asked, log_root)
    specs = plan.expand(asked, paths.cache_root(), log_root)
    check_gpu(asked, specs)
    return asked, specs


def check_gpu(asked: SuitePlan, specs: list[RunSpec]) -> None:
    """Raise PlanError if driver, torch's build or precision rule out the GPU of the runs."""
    from workbench.memory_estimate import estimate, gpu_support
    from workbench.planning import plan

    where = estimate.locate(asked.gpu, asked.devices, cpu=asked.cpu)
    if problems := list(dict.fromkeys(gpu_support.problems(specs, where))):
        raise plan.PlanError(problems)


def check_surroundings(log_root: Path) -> None:
    """Raise SuiteError, with one sentence a line, where no suite can run."""
    from workbench.suites import preflight, suite

    if problems := preflight.check_surroundings(log_root):
        raise suite.SuiteError("\n".join(problems))


def start(
    asked: SuitePlan, specs: list[RunSpec], log_root: Path | None, mode: Mode,
    *, detach: bool, share: bool,
) -> NoReturn:  # fmt: skip
    """Build the subsets, make the suite's folder, and start its warden; ends the command."""
    from workbench import paths
    from workbench.cli import catalogs
    from workbench.headless import follow
    from workbench.suites import suite

    check_surroundings(paths.log_root(log_root))
    if not catalogs.build_strict(specs):
        raise typer.Exit(ExitStatus.USAGE)
    folder = suite.create(paths.log_root(log_root), asked, specs)
    go = follow.detach if detach else follow.foreground
    raise typer.Exit(go(folder, mode, share=share))
