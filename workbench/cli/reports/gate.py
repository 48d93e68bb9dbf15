"""`workbench gate`: exit code 0 if a candidate is no worse than a baseline, 3 if it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from results.text.sanitize import dump_json
from workbench.cli import start
from workbench.cli.options import AsJson, AsMarkdown, Language, LogRoot, Models, Settings, Subsets
from workbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from results.comparison.gate import GateCheck

DEFAULT_PAIRS: Final = 5
DEFAULT_THRESHOLD: Final = 0.05


def parse_share(text: str) -> float:
    """0.05 of `5%` or `0.05`.

    Raises:
        typer.BadParameter: it is neither, or not from 0 to below 100 %.
    """
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no share; write 5% or 0.05") from None
    if not 0 <= share < 1:
        raise typer.BadParameter(f"{text} is not from 0% to 100%")
    return share


BaselineName = Annotated[
    str, typer.Argument(metavar="BASELINE", help="A run (id, label, suite/id), plan or preset.")
]
CandidateName = Annotated[
    str | None,
    typer.Argument(
        metavar="[CANDIDATE]", help="Likewise; two runs are judged by their records alone."
    ),
]
MetricNames = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="step, epoch, wall, rss, vram, or a metric such as recall@1; may be repeated; "
        "default: step and the metric shown in lists.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--worse-than", parser=parse_share, metavar="SHARE", help="Accepted harm; default: 5%."
    ),
]
Pairs = Annotated[
    int, typer.Option("--pairs", min=DEFAULT_PAIRS, help="Processes measured on each side.")
]
BaselinePython = Annotated[
    str | None,
    typer.Option(help="Python of the version that the baseline runs with; default: this one."),
]
JunitFile = Annotated[
    Path | None, typer.Option("--junit", help="Write the checks as JUnit XML into this file.")
]
StepSummary = Annotated[
    bool, typer.Option("--github", help="Append the table to the file of GITHUB_STEP_SUMMARY.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("gate")(gate)


def gate(  # noqa: PLR0913, PLR0917 - one parameter for each option
    baseline: BaselineName,
    candidate: CandidateName = None,
    metrics: MetricNames = None,
    threshold: Threshold = None,
    pairs: Pairs = DEFAULT_PAIRS,
    subset: Subsets = None,
    model: Models = None,
    setting: Settings = None,
    baseline_python: BaselinePython = None,
    junit: JunitFile = None,
    github: StepSummary = False,
    log_root: LogRoot = None,
    lang: Language = "en",
    markdown: AsMarkdown = False,
    as_json: AsJson = False,
) -> None:
    """Exit with 0 if no check is worse than accepted, 3 if one is, 4 if that cannot be told."""
    from results.comparison import gate as rules
    from workbench import paths
    from workbench.gate import measure, procedure

    accepted = DEFAULT_THRESHOLD if threshold is None else threshold
    root, rule = paths.log_root(log_root), procedure.GateRule(tuple(metrics or ()), accepted)
    summary = os.environ.get("GITHUB_STEP_SUMMARY", "") if github else ""
    if github and not summary:
        raise typer.BadParameter("--github: GITHUB_STEP_SUMMARY is not set")
    flags = [("--subset", name) for name in subset or ()]
    flags += [("--model", name) for name in model or ()]
    settings = [("--set", text) for text in setting or ()]
    if candidate and not any(map(measure.is_plan, (baseline, candidate))):
        if flags or settings or baseline_python:
            raise typer.BadParameter("two runs are judged as they are; other options need a plan")
        checks = procedure.check_stored(root, baseline, candidate, rule)
    else:
        a = measure.resolve_side(baseline, root, baseline_python or sys.executable, flags)
        b = measure.resolve_side(candidate or baseline, root, sys.executable, [*flags, *settings])
        try:
            checks = procedure.check_measured(a, b, pairs, rule, root, start.print_progress)
        except measure.IncompleteRunError as error:
            start.print_progress(str(error))
            raise typer.Exit(ExitCode.FAILED) from None
    _write_files(checks, accepted, lang, junit, Path(summary) if summary else None)
    _print_checks(checks, accepted, lang, markdown=markdown, as_json=as_json)
    raise typer.Exit(_EXIT_CODES[rules.summarize(checks)])


def _write_files(
    checks: list[GateCheck], accepted: float, lang: str, junit: Path | None, summary: Path | None
) -> None:
    """JUnit XML, and the table below a job's summary."""
    from results.comparison import gate_report

    if junit is not None:
        junit.write_text(gate_report.render_junit(checks), encoding="utf-8")
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(gate_report.render(checks, accepted, lang, markdown=True))


def _print_checks(
    checks: list[GateCheck], accepted: float, lang: str, *, markdown: bool, as_json: bool
) -> None:
    from results.comparison import gate_report

    if as_json:
        for check in checks:
            typer.echo(dump_json(gate_report.to_row(check)))
    else:
        typer.echo(gate_report.render(checks, accepted, lang, markdown=markdown), nl=False)


_EXIT_CODES: Final = {
    "pass": ExitCode.COMPLETED,
    "worse": ExitCode.WORSE,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "nothing measured": ExitCode.NOTHING_MEASURED,
}
