"""The options that several commands share, and the plan that plan file, preset and flags give.

Apart from the commands, so that one that plans, runs or searches takes the same flags for the same
things, described once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer


def read_folder(text: str) -> Path:
    """A folder as typed. An empty word is a variable of the shell that is not set, not `.`."""
    if not text.strip():
        raise typer.BadParameter("is empty; is a variable of the shell not set?")
    return Path(text)


def read_language(text: str) -> str:
    """A language that reports and tables have."""
    from results.text.translations import LANGS

    if text not in LANGS:
        raise typer.BadParameter(f"'{text}' is not known; use {' or '.join(LANGS)}")
    return text


FOLDER: Final[dict[str, Any]] = {"parser": read_folder, "metavar": "DIRECTORY"}
"""How an option takes a folder."""

LogRoot = Annotated[
    Path | None,
    typer.Option(
        "--log-root",
        help="Where suites live; default: bench_logs here.",
        **FOLDER,
    ),
]
Language = Annotated[
    str, typer.Option("--lang", parser=read_language, metavar="LANGUAGE", help="en or ko.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")]
SuiteName = Annotated[
    str | None,
    typer.Argument(metavar="[SUITE]", help="A suite's name or a part of it; default: the newest."),
]
PlanFile = Annotated[Path | None, typer.Argument(metavar="[PLAN.toml]")]
Preset = Annotated[
    str | None, typer.Option("--preset", "-p", help="A preset; see `workbench presets`.")
]
Engines = Annotated[
    list[str] | None, typer.Option("--engine", "-e", help="Engine; may be repeated.")
]
Subsets = Annotated[
    list[str] | None,
    typer.Option("--subset", "-d", help="Subset, see `workbench data list`; may be repeated."),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="Model, see `workbench models`; may be repeated."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the engine.")
]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", help="Seed (42); every run is made once with each.")
]
Repeats = Annotated[
    int | None, typer.Option("--repeats", min=1, help="How often everything is repeated.")
]
Devices = Annotated[list[int] | None, typer.Option("--device", help="GPU index.")]
NoGpu = Annotated[bool, typer.Option("--cpu", help="No GPU, whatever the plan names.")]
TaskName = Annotated[
    str | None, typer.Option("--task", help="What the engine does: train (first), evaluate, …")
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the suite.")]
Label = Annotated[str | None, typer.Option("--label", help="Name of the experiment.")]
Headless = Annotated[bool, typer.Option(help="No live table: one line a second.")]
Detach = Annotated[bool, typer.Option(help="Return at once; the suite goes on.")]
CostProbe = Annotated[
    int | None,
    typer.Option(
        "--cost-probe",
        metavar="[N]",
        help="Train only N timed steps (200), then forecast the epoch and the run.",
    ),
]
Until = Annotated[
    str | None, typer.Option(help="End a costing run when its interval is this narrow: ±2%.")
]
Share = Annotated[bool, typer.Option(help="Run beside other suites on the device.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the runs, start none.")]


def asked_plan(
    plan_file: Path | None,
    preset: str | None,
    flags: dict[str, Any],
    settings: list[str] | None,
    *,
    cpu: bool = False,
) -> Any:
    """The plan of a file or a preset, overruled by flags (fields of a plan) and `--set`.

    Flags that are empty were not given. `cpu`: on no GPU, whatever the plan names; a GPU's index
    among the flags overrules `cpu = true` of the plan.

    Raises:
        PlanError: both are given, nothing is, or what is given does not fit together.
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
        table = _stated(plan.load(plan_file))
    elif preset:
        table = _stated(plan.preset(preset))
    elif "subsets" not in flags or "models" not in flags:
        raise plan.PlanError(
            ["nothing to run: give a plan file, --preset NAME, or at least -d SUBSET and -m MODEL"]
        )
    chosen = map(set_options.read_setting, settings or ())
    merged = {**table, **flags}
    if "search" in flags:  # its flags overrule single keys
        known = table.get("search") or {}
        searched = {**known.get("ranges", {}), **flags["search"].get("ranges", {})}
        merged["search"] = {**known, **flags["search"], "ranges": searched}
    together = {**table.get("settings", {}), **dict(chosen)}
    merged["settings"] = {name: value for name, value in together.items() if value is not None}
    return plan.parse(merged, "flags" if not table else str(plan_file or f"preset {preset}"))


def _stated(asked: Any) -> dict[str, Any]:
    """The table of a plan without what it leaves open: an engine may follow from its models."""
    table: dict[str, Any] = asked.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return table
