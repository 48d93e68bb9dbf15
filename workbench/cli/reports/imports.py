"""`workbench results import`: results of others, and runs that another program logged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.options import Label, LogRoot, fail

if TYPE_CHECKING:
    from results.records import tracker_files
    from results.records.published_runs import PublishedRuns

EngineName = Annotated[str, typer.Option("--engine", "-e", help="Engine that did its like.")]
SubsetName = Annotated[str, typer.Option("--subset", "-d", help="Subset it was trained on.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Model it trained.")]
SplitName = Annotated[
    str, typer.Option("--split", help="Split of its metrics; default: SUBSET validation.")
]
Items = Annotated[int, typer.Option("--items", min=0, help="Items its metrics are means over.")]


def register(app: typer.Typer) -> None:
    """Add the command to `workbench results`."""
    app.command("import")(import_records)


def import_records(  # noqa: PLR0913, PLR0917 - one parameter for each option
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|FOLDER",
            help="siglip-study, vqa-challenge, weekly-m2kr or a TOML file of published results; "
            "trainer_state.json of HF Trainer, a CSV of W&B or with a column step or epoch, event "
            "files of TensorBoard, or a folder with one of them.",
        ),
    ],
    engine: EngineName = "",
    subset: SubsetName = "",
    model: ModelName = "",
    label: Label = None,
    split: SplitName = "",
    items: Items = 0,
    log_root: LogRoot = None,
) -> None:
    """Add results that were not measured here, marked so; what is there already stays."""
    from results.records import published_runs, store, tracker_files
    from results.text.sanitize import clean_line
    from workbench import paths
    from workbench.reporting import note_writer
    from workbench.reporting.suite_view import read_records

    root = paths.log_root(log_root)
    facts = tracker_files.ImportedRun(engine, subset, model, label or "", split, items)
    try:
        published = _read_source(source, facts)
        record_ids = {(r.identity.suite, r.identity.run_id) for r in read_records(root)}
        root.mkdir(parents=True, exist_ok=True)
        if published.results is not None:
            _keep_file(source, published_runs.copy_path(root, published.results.suite))
        for record in published.records:
            key = (record.identity.suite, record.identity.run_id)
            if key not in record_ids:
                store.append_record(root / "results.jsonl", record)
            state = "is there already" if key in record_ids else "imported"
            typer.echo(clean_line(f"{'/'.join(key)}: {state}"))
        noted_keys = {*record_ids, *((suite, "") for suite, _ in record_ids)}
        for key, notes in published.notes.items():
            for note in () if key in noted_keys else notes:
                note_writer.add_note(
                    root, key, note.kind, note.text, about=note.about, date=note.date
                )
    except (published_runs.PublishedError, note_writer.NoteError, OSError) as error:
        fail(str(error))


def _keep_file(source: str, copy: Path) -> None:
    """Copy the file into the log root: reports read there what is no record and no note."""
    from results.atomic_files import atomic_path
    from results.records import published_runs

    copy.parent.mkdir(exist_ok=True)
    with atomic_path(copy) as draft:
        draft.write_bytes(published_runs.find_file(source).read_bytes())


def _read_source(source: str, facts: tracker_files.ImportedRun) -> PublishedRuns:
    from results.records import published_runs
    from results.records.tracker_files import read_runs

    file = published_runs.find_file(source)
    if file.suffix == ".toml" or not file.exists():  # the error names the shipped ones
        return published_runs.read_published(source)
    if not (facts.engine and facts.subset and facts.model):
        raise published_runs.PublishedError(
            f"{source}: a log does not say what it trained; give -e ENGINE, -d SUBSET, -m MODEL"
        )
    return published_runs.PublishedRuns(read_runs(Path(source), facts))
