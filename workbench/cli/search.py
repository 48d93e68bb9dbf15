"""`workbench search`: hyper-parameter search from flags.

The flags give the `[search]` table of a plan; `workbench run` starts the same suite for a plan file
with such a table.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workbench.cli import options, start

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


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command()(search)


def search(  # noqa: PLR0913, PLR0917 - one parameter for each option
    plan_file: options.PlanFile = None,
    preset: options.Preset = None,
    engine: options.Engines = None,
    subset: options.Subsets = None,
    model: options.Models = None,
    setting: options.Settings = None,
    ranges: Ranges = None,
    metric: Metric = None,
    split: Split = None,
    trials: Trials = None,
    sampler: Sampler = None,
    pruner: Pruner = None,
    seed: options.Seeds = None,
    device: options.Devices = None,
    cpu: options.NoGpu = False,
    name: options.Name = None,
    label: options.Label = None,
    log_root: options.LogRoot = None,
    headless: options.Headless = False,
    detach: options.Detach = False,
    share: options.Share = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Search settings: each trial is a run, chosen by what the trials before it reached."""
    from workbench import paths
    from workbench.cli.set_options import join_settings
    from workbench.headless.renderers import OutputMode
    from workbench.planning import plan
    from workbench.supervisor.warden_options import WardenOptions

    if not (plan_file or preset or (metric and ranges)):
        raise plan.PlanError([start.NOTHING_TO_SEARCH])
    if detach:
        start.check_detach()
    flags = {
        "engine": engine, "subsets": subset, "models": model, "seeds": seed, "devices": device,
        "name": name, "label": label, "search": _drop_unset(
            metric=metric, split=split, trials=trials, sampler=sampler, pruner=pruner,
            ranges=join_settings(map(parse_range, ranges or ()), "--range")),
    }  # fmt: skip
    suite_plan = start.load_plan(plan_file, preset, flags, setting, cpu=cpu)
    root = paths.log_root(log_root)
    suite_plan, specs, remarks = start.prepare_search(suite_plan, root)
    for remark in remarks:
        start.print_progress(remark)
    if dry_run:
        typer.echo("\n".join(describe_search(suite_plan.search, specs[0], as_json=as_json)))
        return
    mode = OutputMode.choose(headless=headless, as_json=as_json)
    start.start_suite(suite_plan, specs, root, mode, detach=detach, options=WardenOptions(share))


def _drop_unset(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value not in (None, "", {})}


def parse_range(text: str) -> tuple[str, Any]:
    """Setting and range of `lr=1e-5..1e-3:log`, `epochs=1..4`, `batch=[8,16]`, `lr={low=…,high=…}`.

    Raises:
        PlanError: the text has none of these forms.
    """
    from workbench.cli import set_options
    from workbench.planning import plan, search_space

    message = f"--range {text}: is not KEY=LOW..HIGH, with :log or :STEP, nor KEY=[VALUES]"
    if "=" not in text:
        raise plan.PlanError([message])
    key, value = set_options.parse_setting(text)
    if not isinstance(value, str) or ".." not in value:
        return key, value if isinstance(value, list | dict) else [value]
    try:
        return key, search_space.parse_span(value)
    except ValueError:
        raise plan.PlanError([message]) from None


def describe_search(search: Any, spec: Any, *, as_json: bool) -> list[str]:
    """The search and its ranges, one line each; as JSON the run's spec and the search."""
    from results.text.sanitize import clean_line, escape_json

    if as_json:
        return [escape_json(spec.model_dump_json()), escape_json(search.model_dump_json())]
    direction = {"maximize": "highest", "minimize": "lowest", None: "best"}[search.direction]
    subset = f" on {search.split}" if search.split else ""
    rows = [
        f"{search.trials} trials of {spec.engine} {spec.subset} {spec.model}",
        f"for the {direction} {search.metric}{subset}, by {search.sampler}, "
        f"pruned by {search.pruner}",
        *(f"{name}: {values.describe()}" for name, values in search.ranges.items()),
    ]
    return [clean_line(row) for row in rows]
