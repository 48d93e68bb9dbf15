"""`workbench data describe`, `diff` and `check`: what is in a subset or a file, and is it sound?

Beside `cli.py`, which registers these commands: they share no options with runs.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench.cli.options import FOLDER, AsJson, Language
from workbench.cli.output_language import set_language, translate, translate_table
from workbench.exit_codes import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from datasets_mm.profile.profile import Profile

TARGET = "a subset by name, a file of JSON lines, or Parquet in M2KR's layout"

Target = Annotated[str, typer.Argument(metavar="SUBSET|FILE", help=f"What: {TARGET}.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the real data, to build a subset that is not.", **FOLDER),
]
ImageRoot = Annotated[str, typer.Option(help="Folder of the pictures that a file names.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Count tokens as this model does; default: CLIP.")
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Count every text in tokens and open every picture.")
]
SampleSize = Annotated[
    int | None, typer.Option("--sample", min=100, help="Records whose texts are counted in tokens.")
]
Seed = Annotated[int, typer.Option(help="Of the samples.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Scan again what is known.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `workbench data`."""
    app.command("list")(list_)
    for command in (build, make_copy, describe, diff, check, paraphrase):
        app.command()(command)


def list_(as_json: AsJson = False) -> None:
    """List the subsets."""
    from workbench.cli import catalogs

    catalogs.subsets(as_json=as_json)


def build(
    names: Annotated[list[str], typer.Argument(metavar="SUBSET…")],
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the real data; default: the local hub cache.", **FOLDER),
    ] = None,
    image_root: Annotated[
        str, typer.Option(help="Folder of the pictures, or oven=/a,evqa=/b,/others.")
    ] = "",
    download: Annotated[
        bool, typer.Option("--download", help="Fetch from the hub what its cache lacks.")
    ] = False,
) -> None:
    """Build subsets into the cache; runs build what is missing by themselves."""
    from workbench.cli import catalogs

    raise typer.Exit(catalogs.build(names, catalogs.Place(data_root, image_root, download)))


def make_copy(
    out: Annotated[
        Path, typer.Option("--out", help="A new folder: the data_root of the copy.", **FOLDER)
    ],
    layout: Annotated[
        str, typer.Option(help="ret-jsonl, m2kr-parquet or vqa-challenge.")
    ] = "ret-jsonl",
    rows: Annotated[int, typer.Option(min=4, help="Records of a training split.")] = 400,
) -> None:
    """Write a small copy of M2KR or of a VQA challenge, true in form: for trying things out."""
    from workbench.cli import catalogs

    if layout not in {"ret-jsonl", "m2kr-parquet", "vqa-challenge"}:
        _refuse(f"no layout '{layout}'; there are ret-jsonl, m2kr-parquet and vqa-challenge")
    raise typer.Exit(catalogs.make_copy(layout, out, rows))


def describe(  # noqa: PLR0913, PLR0917 - one parameter for each option
    target: Target,
    data_root: DataRoot = None,
    image_root: ImageRoot = "",
    model: Model = "",
    exact: Exact = False,
    sample: SampleSize = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    markdown: AsMarkdown = False,
    lang: Language = "en",
    as_json: AsJson = False,
) -> None:
    """Rows, fields, candidate passages, WH-words, text lengths, duplicates, pictures."""
    set_language(lang)
    looks = {"data_root": data_root, "image_root": image_root, "exact": exact, "sample": sample,
             "seed": seed, "fresh": fresh}  # fmt: skip
    found = _profiles([target], model, looks)[0]
    if as_json:
        from results.text.sanitize import escape_json

        typer.echo(escape_json(found.model_dump_json()))
        return
    from workbench.subsets import tables

    _say_title(found, markdown=markdown)
    _print_table(tables.fields(found), markdown=markdown)
    _print_sections([found], markdown=markdown)


def diff(  # noqa: PLR0913, PLR0917 - one parameter for each option
    first: Target,
    second: Target,
    data_root: DataRoot = None,
    image_root: ImageRoot = "",
    model: Model = "",
    exact: Exact = False,
    sample: SampleSize = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    markdown: AsMarkdown = False,
    lang: Language = "en",
    as_json: AsJson = False,
) -> None:
    """Two subsets side by side; differences of shares are percentage points."""
    set_language(lang)
    looks = {"data_root": data_root, "image_root": image_root, "exact": exact, "sample": sample,
             "seed": seed, "fresh": fresh}  # fmt: skip
    found = _profiles([first, second], model, looks)
    if as_json:
        from workbench.subsets import tables

        for line in tables.lines(found):
            typer.echo(json.dumps(line, ensure_ascii=True))
        return
    _print_sections(found, markdown=markdown)


def check(  # noqa: PLR0913, PLR0917 - one parameter for each option
    target: Target,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="FIELD", help="Must be filled everywhere."),
    ] = None,
    data_root: DataRoot = None,
    image_root: ImageRoot = "",
    exact: Exact = False,
    fresh: Fresh = False,
    lang: Language = "en",
    as_json: AsJson = False,
) -> None:
    """For CI: exit code 0 and no problem, or 1 and every problem with its place."""
    set_language(lang)
    _known_fields(require or [])
    looks = {"data_root": data_root, "image_root": image_root, "exact": exact, "fresh": fresh}
    found = _profiles([target], "", looks)[0]
    from datasets_mm.profile import check as judge
    from results.text.sanitize import clean_line

    wrong = judge.problems(found, require or [])
    if as_json:
        for problem in wrong:
            line = {"problem": problem.what, "count": problem.count, "places": problem.places}
            typer.echo(json.dumps(line, ensure_ascii=True))
    else:
        typer.echo(translate(judge.missing_sentence(found)))
        for problem in wrong:
            typer.echo(f"{translate('problem')}: {clean_line(translate(problem.sentence()))}")
        for remark in judge.remarks(found):
            typer.echo(f"{translate('note')}: {clean_line(translate(remark))}")
        counted = f"{len(wrong) or 'no'} problem{'s' if len(wrong) != 1 else ''}"
        typer.echo(f"{found.name}: {translate(counted)}")
    raise typer.Exit(ExitStatus.FAILED if wrong else ExitStatus.COMPLETED)


def paraphrase(  # noqa: PLR0913, PLR0917 - one parameter for each option
    subset: Annotated[str, typer.Argument(help="A subset of questions.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A language model: path:/abs/dir, hub:org/name, a captioner."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The table to write: CSV.")],
    each: Annotated[int, typer.Option(min=1, max=16, help="Wordings of a question.")] = 2,
    limit: Annotated[int, typer.Option(min=0, help="Only the first questions; 0: all.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 16,
    seed: Seed = 0,
    data_root: DataRoot = None,
    image_root: ImageRoot = "",
) -> None:
    """Write other wordings of questions with a local model, for `--set paraphrases=TABLE`."""
    from workbench.cli import catalogs

    if not out.resolve().parent.is_dir():
        _refuse(f"{out}: its folder does not exist; make it, or give another --out")
    numbers = {"--each": each, "--limit": limit, "--batch": batch, "--seed": seed}
    options = [part for name, value in numbers.items() for part in (name, str(value))]
    place = catalogs.Place(data_root, image_root)
    raise typer.Exit(catalogs.paraphrase(subset, model, out, [*options, *place.flags()]))


def _known_fields(names: list[str]) -> None:
    from datasets_mm.recipes.recipe import FIELDS
    from datasets_mm.strict_toml import nearest

    for name in names:
        if name not in FIELDS:
            _refuse(f"--require {name!r} is no field{nearest(name, FIELDS)}")


def _profiles(targets: list[str], model: str, looks: dict[str, Any]) -> list[Profile]:
    """The profiles, one after the other; ends the command where one cannot be made."""
    from workbench.subsets import profile_process

    try:
        if model:
            folder, context = profile_process.model_measure(model)
            looks = {**looks, "tokenizer": folder, "context": context}
        found = []
        for target in targets:
            with _progress(target) as say:
                found.append(profile_process.make(profile_process.Wanted(target, **looks), say))
    except profile_process.ProfileError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    return found


def _refuse(sentence: str) -> NoReturn:
    from results.text.sanitize import clean_line

    typer.echo(f"workbench: {clean_line(translate(sentence), 2000)}", err=True)
    raise typer.Exit(ExitStatus.USAGE)


@contextmanager
def _progress(target: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr where a person looks; else nothing: logs are no place for bars."""
    if not sys.stderr.isatty():
        yield lambda done, total, unit: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from results.text.sanitize import clean_line

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
               TextColumn("{task.fields[unit]}"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        name = clean_line(target, 40).replace("[", "\\[")
        task = bar.add_task(name, total=None, unit="")

        def say(done: int, total: int, unit: str) -> None:
            bar.update(task, completed=done, total=total, unit=unit)

        yield say


def _say_title(found: Profile, *, markdown: bool) -> None:
    from results.tables.table import code
    from results.text.sanitize import clean_line

    name = code(found.name) if markdown else clean_line(found.name)
    typer.echo(f"{'# ' if markdown else ''}{name}\n")
    said = f"{found.kind}, {found.records:,} records, scanned in full in {found.seconds:.1f} s"
    typer.echo(clean_line(translate(said)) + "\n")


def _print_sections(found: list[Profile], *, markdown: bool) -> None:
    from results.tables.table import fenced
    from workbench.subsets import sections, tables
    from workbench.subsets.histogram import histogram

    for section in sections.sections(found):
        typer.echo("")
        made = tables.table(section, found, markup=markdown)
        _print_table(made, markdown=markdown)
        if section.bars:
            bars = "\n".join(histogram(section.bars))
            typer.echo(fenced(bars) if markdown else "\n" + bars + "\n", nl=False)


def _print_table(table: Any, *, markdown: bool) -> None:
    from results.tables.table import markdown as as_markdown
    from results.tables.table import terminal

    shown = translate_table(table)
    typer.echo(as_markdown(shown) if markdown else terminal(shown), nl=False)
