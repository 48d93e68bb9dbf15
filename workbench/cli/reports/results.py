"""Commands of `workbench results`: list, show and export records of runs, and note findings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli import completion
from workbench.cli.options import AsJson, LogRoot, fail

if TYPE_CHECKING:
    from results.records.notes import Kind, RunNotes
    from results.records.schema import RunRecord

NoteTarget = Annotated[
    str,
    typer.Argument(
        metavar="RUN|SUITE|WEEK",
        help="A run's id or label, a suite's name, or a part; the report of a week: week:2026-W48.",
        autocompletion=completion.complete_runs,
    ),
]
Finding = Annotated[
    str | None, typer.Option(help="What was found; each one is kept, none replaces another.")
]
RunStateWord = Annotated[
    str | None,
    typer.Option(help="Of a run: waiting, running, done, stopped, or own words; '': none."),
]
PublicScore = Annotated[
    str | None, typer.Option(help="Of a run: its score on a challenge's leaderboard; '': none.")
]
Tag = Annotated[str | None, typer.Option(help="A word to find it by; -word takes it back.")]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--why", metavar="[NAME=]TEXT", help="Why a subset, model or variant was chosen."),
]
NextStep = Annotated[str | None, typer.Option("--next", help="A next step.")]
Event = Annotated[str | None, typer.Option(help="A line of the timeline.")]
EventDate = Annotated[str, typer.Option(help="Of --event, in any form; default: today.")]
Links = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHERE TEXT", help="A document beside it: path or address, what it holds."
    ),
]
ReportTitle = Annotated[str | None, typer.Option(help="Title of the report.")]
Goal = Annotated[str | None, typer.Option(help="What the suite is to find out.")]
Background = Annotated[str | None, typer.Option(help="What led to it.")]
Conclusion = Annotated[str | None, typer.Option(help="What follows from it.")]
TakenBack = Annotated[
    str | None, typer.Option(help="The whole text of a finding, next step, event or link.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `workbench results`."""
    app.command("show")(show)
    app.command("note")(note)
    app.command("export")(export_records)


def show(
    run_id: Annotated[
        str,
        typer.Argument(
            help="A run's id, a part of it, or its label.", autocompletion=completion.complete_runs
        ),
    ],
    log_root: LogRoot = None,
    as_json: AsJson = False,
) -> None:
    """Print what is known of one run; --json: its record as it is stored."""
    from workbench import paths
    from workbench.reporting import suite_view

    suite_view.show_record(paths.log_root(log_root), run_id, as_json=as_json)


def note(  # noqa: PLR0913, PLR0917 - one parameter for each option
    name: NoteTarget,
    finding: Finding = None,
    state: RunStateWord = None,
    public_score: PublicScore = None,
    tag: Tag = None,
    reasons: Reasons = None,
    next_: NextStep = None,
    event: Event = None,
    date: EventDate = "",
    link: Links = None,
    title: ReportTitle = None,
    goal: Goal = None,
    background: Background = None,
    conclusion: Conclusion = None,
    take_back: TakenBack = None,
    log_root: LogRoot = None,
) -> None:
    """Note something on a run, a suite or a week; without any option, print what is noted."""
    from results.text.sanitize import clean_line
    from workbench import paths
    from workbench.reporting import note_writer

    root = paths.log_root(log_root)
    key = note_writer.find_target(root, name)
    texts: dict[Kind, str | None] = {
        "title": title, "goal": goal, "background": background, "finding": finding, "state": state,
        "public-score": public_score, "tag": tag, "next": next_, "event": event,
        "conclusion": conclusion, "withdrawn": take_back,
    }  # fmt: skip
    for kind, text in texts.items():
        if text is not None:
            note_writer.add_note(root, key, kind, text, date=date)
    for reason in reasons or ():
        note_writer.add_reason(root, key, reason)
    for target in link or ():
        note_writer.add_link(root, key, target)
    typer.echo(clean_line("/".join(filter(None, key))))
    for kind_name, text in note_writer.standing_lines(note_writer.read_standing(root, key)):
        typer.echo(f"  {kind_name:<10} {clean_line(text, note_writer.MAX_LENGTH)}")


def export_records(
    file: Annotated[Path, typer.Argument(help="FILE.csv, FILE.parquet or FILE.jsonl.")],
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="COLUMN=PATTERN", help="Only these: subset=emoji_*, params.lr=0.001."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="Only this column; may be given several times."),
    ] = None,
    run_filter: Annotated[
        str, typer.Option("--filter", help="Only runs that fit: 'since:7d end:ok'; as in `list`.")
    ] = "",
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="SUITE/RUN", help="Only this run; -: those named on stdin."),
    ] = None,
    log_root: LogRoot = None,
) -> None:
    """Write records with their notes as a table for pandas or a spreadsheet: one row a run."""
    from results.records import data_frame, notes
    from results.text.sanitize import clean_line
    from workbench import paths
    from workbench.reporting import suite_view

    root = paths.log_root(log_root)
    standings = notes.reduce_notes(notes.read_notes(root / "notes.jsonl"))
    records = _choose_records(suite_view.read_records(root), runs or [])
    try:
        records = _filter_records(records, run_filter, standings)
        frame = data_frame.build_frame(records, standings)
        patterns = dict(_parse_pattern(text) for text in filters or ())
        frame = data_frame.select_rows(frame, patterns)
        frame = data_frame.select_columns(frame, columns) if columns else frame
        data_frame.write_frame(frame, file)
    except (data_frame.UnknownColumnError, ValueError) as error:
        fail(str(error))
    count = "1 run" if len(frame) == 1 else f"{len(frame)} runs"
    typer.echo(clean_line(f"{count}, {len(frame.columns)} columns: {file}", 4096))


def _parse_pattern(text: str) -> tuple[str, str]:
    column, equals, pattern = text.partition("=")
    if not (column and equals):
        raise ValueError(f"'{text}' is not COLUMN=PATTERN, as subset=emoji_*")
    return column, pattern


def _filter_records(
    records: list[RunRecord], text: str, notes_of_run: Mapping[tuple[str, str], RunNotes]
) -> list[RunRecord]:
    """The records that fit a filter; all of them without one.

    Raises:
        FilterError: the filter is none.
    """
    if not text:
        return records
    from results.listing import run_filter
    from results.listing.summary import summarize_record

    summaries = [summarize_record(record, at) for at, record in enumerate(records)]
    chosen = run_filter.parse_filter(text, run_filter.collect_names(summaries))
    runs = [run_filter.ListedRun(s, notes_of_run.get(s.key)) for s in summaries]
    return [records[run.summary.offset] for run in run_filter.select_runs(runs, chosen)]


def _choose_records(records: list[RunRecord], names: list[str]) -> list[RunRecord]:
    """The records of these `suite/run`, in the order of the names; `-` stands for lines of stdin.

    Raises:
        SuiteError: there is no such run.
    """
    from workbench.suites.suite import SuiteError

    if not names:
        return records
    by_name = {f"{r.identity.suite}/{r.identity.run_id}": r for r in records}
    chosen: list[str] = []
    for name in names:
        chosen += sys.stdin.read().split() if name == "-" else [name]
    if missing := [name for name in chosen if name not in by_name]:
        raise SuiteError(f"no run '{missing[0]}'; `workbench results list` has them")
    return [by_name[name] for name in chosen]
