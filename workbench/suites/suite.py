"""Suite folder: its creation, and finding suites and their runs."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from datasets_mm.atomic_files import write_atomic
from engines.protocol import RunSpec
from workbench import paths
from workbench.planning import cost_probe, plan
from workbench.suites import trials

_RUN: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""The alphabet of run ids."""

_CREATED: Final = "# created "
"""Prefix of the first line of plan.toml; the creation time in UTC follows."""


class SuiteError(ValueError):
    """A suite that cannot be found, made or read; one sentence."""


def create_suite(log_root: Path, suite_plan: plan.SuitePlan, specs: Sequence[RunSpec]) -> Path:
    """Create the folder of a new suite, with plan.toml and a spec.json for every run.

    Cost probes get the calibration from earlier forecasts of this log root. A search has no run
    yet: its one spec is the common part of all trials.

    Raises:
        SuiteError: the log root cannot be written.
    """
    try:
        paths.make_private(log_root)
        folder = _new_folder(log_root, suite_plan.name)
        (folder / "runs").mkdir(mode=0o700)
        calibrated = cost_probe.calibrate_probes(specs, log_root)
        named = [spec.model_copy(update={"suite": folder.name}) for spec in calibrated]
        if suite_plan.search is not None:
            searched = tuple(suite_plan.search.ranges)
            trials.write_base(
                folder,
                trials.SearchBase(
                    trials=suite_plan.search.trials, searched=searched, spec=named[0]
                ),
            )
            named = []
        for spec in named:
            run = folder / "runs" / spec.run_id
            run.mkdir(mode=0o700)
            (run / "spec.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        # Last: it is what makes readers take the folder for a suite.
        created = f"{_CREATED}{datetime.now(UTC).isoformat()}\n"
        write_atomic(folder / "plan.toml", created + plan.dump(suite_plan))
    except OSError as error:
        raise SuiteError(
            f"{log_root}: suites cannot be written there ({error.strerror}); "
            "give another folder with --log-root"
        ) from None
    return folder


def _new_folder(log_root: Path, name: str) -> Path:
    for _ in range(100):
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = log_root / f"{stamp}-{name}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return folder
    raise SuiteError(f"{log_root}: no free name for a new suite; try again")


def list_suites(log_root: Path) -> list[Path]:
    """All suites of a log root, newest first.

    Sorted by the first line of plan.toml: names have local time, which differs between a container
    and its host, and the time of the file is that of a copy after `cp -r` or git.
    """
    plans = [p for p in log_root.glob("*/plan.toml") if (p.parent / "runs").is_dir()]
    return [p.parent for p in sorted(plans, key=_creation_order, reverse=True)]


def _creation_order(plan_file: Path) -> tuple[float, str]:
    """Creation time in seconds since the epoch, then the suite's name."""
    return read_creation_time(plan_file), plan_file.parent.name


def read_creation_time(plan_file: Path) -> float:
    """Creation time of a suite in seconds since the epoch; 0: its plan.toml was just deleted.

    Version 0.1 wrote no such line; for its suites it is the modification time of the file.
    """
    try:
        first = ""
        if plan_file.is_file():  # a FIFO would wait
            with plan_file.open(encoding="utf-8", errors="replace") as file:
                first = file.readline(100)
        if first.startswith(_CREATED):
            return datetime.fromisoformat(first.removeprefix(_CREATED).strip()).timestamp()
    except (OSError, ValueError):
        pass
    try:
        return plan_file.stat().st_mtime
    except OSError:
        return 0.0


def find_suite(log_root: Path, name: str | None) -> Path:
    """A suite by its name, a part of it, or its path; the newest without a name.

    Raises:
        SuiteError: there is none, or more than one fits.
    """
    if name and (Path(name) / "plan.toml").is_file():
        return Path(name).absolute()
    folders = list_suites(log_root)
    if not folders:
        if (log_root / "results.jsonl").is_file():
            raise SuiteError(
                f"{log_root}: has records but no suite's folder; `workbench results list` names "
                "them, and `workbench report NAME` takes such a name"
            )
        raise SuiteError(f"{log_root}: no suites yet; start one with `workbench run`")
    if name is None:
        return folders[0]
    fitting = [s for s in folders if s.name == name] or [s for s in folders if name in s.name]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise SuiteError(f"{log_root}: no suite '{name}'; `workbench ps --all` lists them")
    raise SuiteError(f"'{name}' fits {len(fitting)} suites; give more of the name")


def read_runs(suite: Path) -> list[tuple[Path, RunSpec]]:
    """The runs of a suite in their order.

    Raises:
        SuiteError: a spec.json is missing or broken.
    """
    specs = []
    for name in sort_run_names(list_run_names(suite)):
        folder = suite / "runs" / name
        try:
            spec = RunSpec.model_validate_json((folder / "spec.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise SuiteError(f"{folder}/spec.json cannot be read: {error}") from None
        specs.append((folder, spec))
    return specs


def list_run_names(suite: Path) -> list[str]:
    """Names of its run folders, unordered.

    Without folders of other programs: `.DS_Store`, `@eaDir`, `.ipynb_checkpoints`, `Thumbs.db`.

    Raises:
        OSError: the suite has no folder of runs.
    """
    with os.scandir(suite / "runs") as entries:
        return [entry.name for entry in entries if _RUN.fullmatch(entry.name) and entry.is_dir()]


def sort_run_names(names: Sequence[str]) -> list[str]:
    """The names in the order of the runs."""
    return sorted(names, key=_run_order)


def _run_order(name: str) -> tuple[int, str]:
    """Sort key: number, then name."""
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0, name
