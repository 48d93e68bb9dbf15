"""The last steps of every command that starts a suite, the same for `run` and `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from workbench.exits import ExitStatus

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.plan import SuitePlan
    from workbench.views import Mode


def check_devices(asked: SuitePlan) -> None:
    """Raise PlanError if the plan names GPUs that are not here, or nothing tells what is here."""
    from workbench import plan, preflight, presence

    if problems := list(preflight.check_proc()):  # memory is forecast from it
        raise plan.PlanError(problems)
    if missing := presence.device_problem(asked.devices):
        raise plan.PlanError([missing])


def expand(asked: SuitePlan, log_root: Path) -> tuple[SuitePlan, list[RunSpec]]:
    """The plan with whole names of trained models, and its runs, if this machine can do them.

    Raises:
        PlanError: the plan is wrong, or a device that it needs is not here or cannot run it.
    """
    from workbench import paths, plan

    check_devices(asked)
    asked = plan.name_models(asked, log_root)
    specs = plan.expand(asked, paths.cache_root(), log_root)
    check_gpu(asked, specs)
    return asked, specs


def check_gpu(asked: SuitePlan, specs: list[RunSpec]) -> None:
    """Raise PlanError if driver, torch's build or precision rule out the GPU of the runs."""
    from workbench import plan
    from workbench.fit import forecast, support

    where = forecast.locate(asked.gpu, asked.devices, cpu=asked.cpu)
    if problems := list(dict.fromkeys(support.problems(specs, where))):
        raise plan.PlanError(problems)


def check_surroundings(log_root: Path) -> None:
    """Raise SuiteError, with one sentence a line, where no suite can run."""
    from workbench import preflight, suite

    if problems := preflight.check_surroundings(log_root):
        raise suite.SuiteError("\n".join(problems))


def start(
    asked: SuitePlan, specs: list[RunSpec], log_root: Path | None, mode: Mode,
    *, detach: bool, share: bool,
) -> NoReturn:  # fmt: skip
    """Build the subsets, make the suite's folder, and start its warden; ends the command."""
    from workbench import headless, listing, paths, suite

    check_surroundings(paths.log_root(log_root))
    if not listing.build_strict(specs):
        raise typer.Exit(ExitStatus.USAGE)
    folder = suite.create(paths.log_root(log_root), asked, specs)
    go = headless.detach if detach else headless.foreground
    raise typer.Exit(go(folder, mode, share=share))
