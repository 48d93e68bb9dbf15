"""`workbench init`: three questions, or flags, give a plan with comments that has been checked."""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from workbench.cli import start
from workbench.cli.options import GpuName, LogRoot, Models, NoGpu, Settings

DATA: Final = "Where is your data? A folder, a subset, or nothing for the demo's data"
GPU: Final = "Which GPU? Nothing for this machine's, `cpu`, or a name such as A10G"
COMPARE: Final = "What do you want to compare? models, subsets, seeds, SETTING=VALUE,VALUE, nothing"
SEEDS: Final = (1, 2, 3)
PlanPath = Annotated[
    Path, typer.Argument(metavar="[PLAN.toml]", help="The new plan; default: plan.toml.")
]
DataSource = Annotated[
    str | None,
    typer.Option("--data", metavar="FOLDER|SUBSET", help="Data; default: the demo's."),
]
Comparison = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="WHAT",
        help="models (default), subsets, seeds, SETTING=VALUE,VALUE or nothing.",
    ),
]
EngineName = Annotated[
    str | None, typer.Option("--engine", "-e", help="Engine; default: what the data fit.")
]
Overwrite = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("init")(init_command)


def init_command(  # noqa: PLR0913, PLR0917 - one parameter for each option
    plan_file: PlanPath = Path("plan.toml"),
    data: DataSource = None,
    gpu: GpuName = "",
    cpu: NoGpu = False,
    compare: Comparison = None,
    engine: EngineName = None,
    model: Models = None,
    setting: Settings = None,
    log_root: LogRoot = None,
    force: Overwrite = False,
) -> None:
    """Write a plan with comments, after three questions or from flags, and check it."""
    from workbench import paths
    from workbench.planning import plan, plan_schema, plan_template

    if plan_file.exists() and not force:
        raise plan.PlanError([f"{plan_file} exists; name another file, or give --force"])
    if not _is_terminal() and None in (data, compare):
        start.print_progress("stdin is no terminal: what no flag answers takes its default")
    data = _ask(data, DATA, "")
    gpu = "cpu" if cpu else _ask(gpu or None, GPU, "")
    compare = _ask(compare, COMPARE, "models")
    answers = _choose(plan_file, data, gpu, compare, (engine, model or (), setting or ()))
    text = plan_template.render_plan(answers)
    suite_plan = plan.parse(tomllib.loads(text), str(plan_file))
    _, specs, remarks = start.prepare_runs(suite_plan, (), paths.log_root(log_root), force=False)
    plan_file.write_text(text, encoding="utf-8")
    schema_file = plan_file.with_name(plan_schema.FILE_NAME)
    schema_file.write_text(plan_schema.render_schema(), encoding="utf-8")
    for remark in remarks:
        start.print_progress(remark)
    count = "1 run" if len(specs) == 1 else f"{len(specs)} runs"
    start.print_progress(f"{plan_file}: {count}, checked; {schema_file} is for editors")
    start.print_progress(f"next: workbench plan {plan_file} --explain; workbench run {plan_file}")
    typer.echo(str(plan_file))


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _ask(answer: str | None, question: str, default: str) -> str:
    """The answer of a flag, of a person at a terminal, or the default."""
    if answer is not None or not _is_terminal():
        return answer or default
    prompted: str = typer.prompt(question, default=default, show_default=bool(default), err=True)
    return prompted.strip()


def _choose(
    plan_file: Path, data: str, gpu: str, compare: str,
    flags: tuple[str | None, Sequence[str], Sequence[str]],
) -> Any:  # fmt: skip
    """The answers as parts of a plan; `flags`: engine, models and `--set` options.

    Raises:
        PlanError: nothing is ready for such a plan here.
    """
    from workbench.cli.set_options import parse_settings
    from workbench.planning.plan_template import PlanAnswers

    engine, models, set_options = flags
    subsets_by_engine, data_root = _find_subsets(data)
    engine = engine or next(
        name for name in ("retrieval", *subsets_by_engine) if name in subsets_by_engine
    )
    subsets = subsets_by_engine.get(engine) or _refuse_engine(engine, list(subsets_by_engine))
    on_cpu = gpu.lower() == "cpu"
    models = models or _ready_models(engine, on_cpu=on_cpu)
    variants = _variants(compare)
    return PlanAnswers(
        name=_suite_name(plan_file),
        engine=engine,
        subsets=subsets if compare == "subsets" else subsets[:1],
        models=models if compare == "models" or len(models) == 1 else models[:1],
        seeds=SEEDS if compare == "seeds" else (42,),
        gpu="" if on_cpu else gpu,
        cpu=on_cpu,
        settings={**({"data_root": data_root} if data_root else {}), **parse_settings(set_options)},
        variants=variants,
    )


def _find_subsets(data: str) -> tuple[dict[str, list[str]], str]:
    """Training subsets by engine, and the folder that they need.

    Raises:
        PlanError: there is no such folder or subset, or nothing complete in it.
    """
    from datasets_mm import catalog as subset_catalog
    from engines import catalog
    from workbench import paths
    from workbench.planning import plan, plan_choices

    if data in ("", "demo"):
        return plan_choices.list_training_subsets(None) or plan_choices.refuse_missing_demo(), ""
    if data in subset_catalog.names():
        form = subset_catalog.subset_form(data)
        names = [name for name in catalog.names() if form == catalog.load(name).FORM]
        return {name: [data] for name in names}, ""
    folder = paths.resolve(data)
    if not folder.is_dir():
        close = difflib.get_close_matches(data, subset_catalog.names(), n=1)
        suggestion = f"did you mean '{close[0]}'?" if close else "`workbench data list` shows those"
        raise plan.PlanError([f"--data {data}: neither a folder nor a subset; {suggestion}"])
    subsets = plan_choices.list_training_subsets(folder)
    return subsets or plan_choices.refuse_empty_folder(folder), str(folder)


def _refuse_engine(engine: str, engines: Sequence[str]) -> list[str]:
    from workbench.planning import plan

    raise plan.PlanError(
        [f"--engine {engine}: these data are for {' or '.join(engines)}; leave it out"]
    )


def _ready_models(engine: str, *, on_cpu: bool) -> list[str]:
    from workbench.planning import plan, plan_choices
    from workbench.telemetry.gpus import is_library_present

    models = plan_choices.list_ready_models(
        engine, pretrained_first=not on_cpu and is_library_present()
    )
    if not models:
        raise plan.PlanError(
            [f"no model of engine {engine} is ready here; `workbench models` says what is missing"]
        )
    return models[: plan_choices.MAX_MODELS]


def _variants(compare: str) -> list[tuple[str, Mapping[str, Any]]]:
    """One variant for each value of `lr=1e-4,3e-4`; none for the other comparisons.

    Raises:
        PlanError: it is none of the comparisons.
    """
    from workbench.cli.set_options import parse_setting
    from workbench.planning import plan

    key, equals, values = compare.partition("=")
    if compare in ("models", "subsets", "seeds", "nothing"):
        return []
    texts = [text.strip() for text in values.split(",") if text.strip()]
    if not equals or len(texts) < 2:
        raise plan.PlanError(
            [f"--compare {compare}: is not models, subsets, seeds, nothing or lr=1e-4,3e-4"]
        )
    pairs = [(f"{key.strip()} {text}", parse_setting(f"{key}={text}")) for text in texts]
    return [(label, {name: value}) for label, (name, value) in pairs]


def _suite_name(plan_file: Path) -> str:
    """The file's name as far as a suite may have it."""
    letters = [char if char.isascii() and char.isalnum() else "-" for char in plan_file.stem]
    return "".join(letters).lower().strip("-")[:40].strip("-") or "suite"
