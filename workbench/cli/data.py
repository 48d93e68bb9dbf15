"""Commands of `workbench data`: list, build, describe, diff and check subsets and files."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli import completion
from workbench.cli.options import FOLDER, AsJson, AsMarkdown, Language, fail
from workbench.exit_codes import ExitCode
from workbench.output_language import set_language, translate, translate_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from datasets_mm.profile.profile import Profile

TARGET = "a subset by name, a file of JSON lines, or Parquet in M2KR's layout"

Target = Annotated[
    str,
    typer.Argument(
        metavar="SUBSET|FILE", help=f"What: {TARGET}.", autocompletion=completion.complete_subsets
    ),
]
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


def register(app: typer.Typer) -> None:
    """Add the commands to `workbench data`."""
    app.command("list")(list_)
    for command in (build, make_copy, describe, diff, check, paraphrase):
        app.command()(command)


def list_(as_json: AsJson = False) -> None:
    """List the subsets."""
    from workbench.cli import catalogs

    catalogs.print_subsets(as_json=as_json)


def build(
    names: Annotated[
        list[str], typer.Argument(metavar="SUBSET…", autocompletion=completion.complete_subsets)
    ],
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
    from workbench.cli import build

    raise typer.Exit(
        build.build_subsets(names, build.DataLocation(data_root, image_root, download))
    )


def make_copy(
    out: Annotated[
        Path, typer.Option("--out", help="A new folder: the data_root of the copy.", **FOLDER)
    ],
    layout: Annotated[
        str, typer.Option(help="ret-jsonl, m2kr-parquet, vqa-challenge or aihub.")
    ] = "ret-jsonl",
    rows: Annotated[int, typer.Option(min=4, help="Records of a training split.")] = 400,
) -> None:
    """Write a small copy of M2KR, a VQA challenge or AI-Hub's captions, for trying things out."""
    from workbench.cli import build

    if layout not in {"ret-jsonl", "m2kr-parquet", "vqa-challenge", "aihub"}:
        fail(
            translate(
                f"no layout '{layout}'; there are ret-jsonl, m2kr-parquet, vqa-challenge and aihub"
            )
        )
    raise typer.Exit(build.write_copy(layout, out, rows))


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
    scan_options = {
        "data_root": data_root, "image_root": image_root, "exact": exact, "sample": sample,
        "seed": seed, "fresh": fresh,
    }  # fmt: skip
    profile = _make_profiles([target], model, scan_options)[0]
    if as_json:
        from results.text.sanitize import escape_json

        typer.echo(escape_json(profile.model_dump_json()))
        return
    from workbench.data_profile import tables

    _print_title(profile, markdown=markdown)
    _print_table(tables.schema_table(profile), markdown=markdown)
    _print_sections([profile], markdown=markdown)


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
    scan_options = {
        "data_root": data_root, "image_root": image_root, "exact": exact, "sample": sample,
        "seed": seed, "fresh": fresh,
    }  # fmt: skip
    profiles = _make_profiles([first, second], model, scan_options)
    if as_json:
        from workbench.data_profile import tables

        for line in tables.json_rows(profiles):
            typer.echo(json.dumps(line, ensure_ascii=True))
        return
    _print_sections(profiles, markdown=markdown)


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
    _check_fields(require or [])
    scan_options = {
        "data_root": data_root,
        "image_root": image_root,
        "exact": exact,
        "fresh": fresh,
    }
    profile = _make_profiles([target], "", scan_options)[0]
    from datasets_mm.profile import check as profile_check
    from results.text.sanitize import clean_line

    problems = profile_check.find_problems(profile, require or [])
    if as_json:
        for problem in problems:
            line = {"problem": problem.message, "count": problem.count, "places": problem.positions}
            typer.echo(json.dumps(line, ensure_ascii=True))
    else:
        typer.echo(translate(profile_check.missing_sentence(profile)))
        for problem in problems:
            typer.echo(f"{translate('problem')}: {clean_line(translate(problem.sentence()))}")
        for remark in profile_check.find_remarks(profile):
            typer.echo(f"{translate('note')}: {clean_line(translate(remark))}")
        counted = f"{len(problems) or 'no'} problem{'s' if len(problems) != 1 else ''}"
        typer.echo(f"{profile.name}: {translate(counted)}")
    raise typer.Exit(ExitCode.FAILED if problems else ExitCode.COMPLETED)


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
    from workbench.cli import build

    if not out.resolve().parent.is_dir():
        fail(translate(f"{out}: its folder does not exist; make it, or give another --out"))
    numbers = {"--each": each, "--limit": limit, "--batch": batch, "--seed": seed}
    options = [part for name, value in numbers.items() for part in (name, str(value))]
    location = build.DataLocation(data_root, image_root)
    raise typer.Exit(build.write_paraphrases(subset, model, out, [*options, *location.flags()]))


def _check_fields(names: list[str]) -> None:
    from datasets_mm.recipes.recipe import FIELDS
    from datasets_mm.strict_toml import suggest_nearest

    for name in names:
        if name not in FIELDS:
            fail(translate(f"--require {name!r} is no field{suggest_nearest(name, FIELDS)}"))


def _make_profiles(targets: list[str], model: str, scan_options: dict[str, Any]) -> list[Profile]:
    """The profiles of the targets; ends the command if one cannot be made."""
    from workbench.data_profile import profile_process

    try:
        if model:
            folder, context = profile_process.find_tokenizer(model)
            scan_options = {**scan_options, "tokenizer": folder, "context": context}
        profiles = []
        for target in targets:
            with _progress_bar(target) as report:
                profiles.append(
                    profile_process.make_profile(
                        profile_process.ProfileRequest(target, **scan_options), report
                    )
                )
    except profile_process.ProfileError as error:
        from workbench.cli import build

        fail(build.name_data_option(translate(str(error))))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    return profiles


@contextmanager
def _progress_bar(target: str) -> Iterator[Callable[[int, int, str], None]]:
    """A callback (done, total, unit) for a progress bar on stderr, if that is a terminal."""
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

        def update_bar(done: int, total: int, unit: str) -> None:
            bar.update(task, completed=done, total=total, unit=unit)

        yield update_bar


def _print_title(profile: Profile, *, markdown: bool) -> None:
    from results.text.sanitize import clean_line
    from results.text.table import code

    name = code(profile.name) if markdown else clean_line(profile.name)
    typer.echo(f"{'# ' if markdown else ''}{name}\n")
    summary = (
        f"{profile.kind}, {profile.records:,} records, scanned in full in {profile.seconds:.1f} s"
    )
    typer.echo(clean_line(translate(summary)) + "\n")


def _print_sections(profiles: list[Profile], *, markdown: bool) -> None:
    from results.text.table import code_block
    from workbench.data_profile import sections, tables
    from workbench.data_profile.histogram import histogram_lines

    for section in sections.build_sections(profiles):
        typer.echo("")
        table = tables.section_table(section, profiles, markup=markdown)
        _print_table(table, markdown=markdown)
        if section.bars:
            bars = "\n".join(histogram_lines(section.bars))
            typer.echo(code_block(bars) if markdown else "\n" + bars + "\n", nl=False)


def _print_table(table: Any, *, markdown: bool) -> None:
    from results.text.table import render_markdown, render_terminal

    translated = translate_table(table)
    typer.echo(render_markdown(translated) if markdown else render_terminal(translated), nl=False)
