"""`workbench search`: runs whose settings are chosen one after the other.

Beside `cli.py`, which registers it. It starts what `workbench run` starts for a plan that has a
`[search]` table; here are the flags that make such a table.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from workbench.cli import start
from workbench.cli.options import (
    AsJson,
    Detach,
    Devices,
    DryRun,
    Engines,
    Headless,
    Label,
    LogRoot,
    Models,
    Name,
    NoGpu,
    PlanFile,
    Preset,
    Seeds,
    Settings,
    Share,
    Subsets,
    asked_plan,
)

Ranges = Annotated[
    list[str] | None,
    typer.Option(
        "--range",
        metavar="KEY=VALUES",
        help="A searched setting: lr=1e-5..1e-3:log, batch=[8,16,32], or the table of a plan.",
    ),
]
Metric = Annotated[
    str | None, typer.Option("--metric", help="What is to be best: recall@1, say, or loss.")
]
Split = Annotated[str | None, typer.Option("--split", help="The subset it is measured on.")]
Trials = Annotated[int | None, typer.Option("--trials", help="How many runs in all (20).")]
Sampler = Annotated[str | None, typer.Option("--sampler", help="tpe or random.")]
Pruner = Annotated[str | None, typer.Option("--pruner", help="median or none.")]


NOTHING: Final = (
    "nothing to search: give --range KEY=LOW..HIGH and --metric NAME, or a plan with [search]"
)


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command()(search)


def search(  # noqa: PLR0913, PLR0917 - one parameter for each option
    plan_file: PlanFile = None,
    preset: Preset = None,
    engine: Engines = None,
    subset: Subsets = None,
    model: Models = None,
    setting: Settings = None,
    ranges: Ranges = None,
    metric: Metric = None,
    split: Split = None,
    trials: Trials = None,
    sampler: Sampler = None,
    pruner: Pruner = None,
    seed: Seeds = None,
    device: Devices = None,
    cpu: NoGpu = False,
    name: Name = None,
    label: Label = None,
    log_root: LogRoot = None,
    headless: Headless = False,
    detach: Detach = False,
    share: Share = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Search settings: each trial is a run, chosen by what the trials before it reached."""
    from workbench import paths
    from workbench.headless.renderers import Mode
    from workbench.planning import plan

    asked_for = {
        "metric": metric, "split": split, "trials": trials, "sampler": sampler, "pruner": pruner,
        "ranges": dict(map(read_range, ranges or ())),
    }  # fmt: skip
    flags = {
        "engine": engine, "subsets": subset, "models": model, "seeds": seed, "devices": device,
        "name": name, "label": label, "search": {k: v for k, v in asked_for.items() if v},
    }  # fmt: skip
    if not (plan_file or preset or (metric and ranges)):
        raise plan.PlanError([NOTHING])
    asked = asked_plan(plan_file, preset, flags, setting, cpu=cpu)
    if asked.search is None:
        raise plan.PlanError([NOTHING])
    asked, specs = start.expand(asked, paths.log_root(log_root))
    if dry_run:
        for line in described(asked.search, specs[0], as_json=as_json):
            typer.echo(line)
        return
    mode = Mode.of(headless=headless, as_json=as_json)
    start.start(asked, specs, log_root, mode, detach=detach, share=share)


def read_range(text: str) -> tuple[str, Any]:
    """`lr=1e-5..1e-3:log`, `epochs=1..4`, `batch=[8,16,32]`, `lr={low=1e-5,high=1e-3}`.

    Raises:
        PlanError: it is none of these.
    """
    from workbench.cli import set_options
    from workbench.planning import plan

    wrong = f"--range {text}: is not KEY=LOW..HIGH, with :log or :STEP, nor KEY=[VALUES]"
    if "=" not in text:
        raise plan.PlanError([wrong])
    key, value = set_options.read_setting(text)
    if not isinstance(value, str) or ".." not in value:
        return key, value if isinstance(value, list | dict) else [value]
    span, _, kind = value.partition(":")
    try:
        low, high = (int(end) if end.lstrip("+-").isdigit() else float(end)
                     for end in span.split(".."))  # fmt: skip
    except ValueError:
        raise plan.PlanError([wrong]) from None
    if kind in ("", "log"):
        return key, {"low": low, "high": high, "log": bool(kind)}
    try:
        return key, {"low": low, "high": high, "step": float(kind)}
    except ValueError:
        raise plan.PlanError([wrong]) from None


def described(search: Any, spec: Any, *, as_json: bool) -> list[str]:
    """What would be searched, one line each."""
    from results.text.sanitize import clean_line, escape_json

    if as_json:
        return [escape_json(spec.model_dump_json()), escape_json(search.model_dump_json())]
    way = {"maximize": "highest", "minimize": "lowest", None: "best"}[search.direction]
    where = f" on {search.split}" if search.split else ""
    rows = [
        f"{search.trials} trials of {spec.engine} {spec.subset} {spec.model}",
        f"for the {way} {search.metric}{where}, by {search.sampler}, pruned by {search.pruner}",
        *(f"{name}: {values.words()}" for name, values in search.ranges.items()),
    ]
    return [clean_line(row) for row in rows]
