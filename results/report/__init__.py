"""Reports as Markdown, HTML and LaTeX, with figures on request.

`render`, `render_summary`, `write` and `append_step_summary` are the whole interface;
`python -m results.report` is the same for processes that must not load matplotlib.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from results.atomic_files import atomic_path
from results.comparison.document_view import DocumentView
from results.records.suite_view import SuiteView
from results.report import answers, captions, table_files
from results.report.documents import kinds
from results.report.documents.kinds import render_tables as render_summary
from results.report.html import render_html
from results.report.latex import render_latex
from results.report.notion import render_notion
from results.text.translations import translate

__all__ = ["append_step_summary", "render", "render_summary", "write"]

View = DocumentView | SuiteView
"""What a report is of; a suite alone is a document of kind `suite`."""

SUMMARY_BYTES: Final = 900 * 1024
FENCE: Final = "```\n"
FOLD_END: Final = "\n</details>\n"


def render(view: View, lang: str = "en", *, appendix: bool = False) -> str:
    """The report as Markdown, without figures and without touching the disk."""
    return kinds.render(_as_document(view), lang, appendix=appendix)


def _as_document(view: View) -> DocumentView:
    return view if isinstance(view, DocumentView) else DocumentView(suite=view)


def write(
    view: View,
    out: Path,
    lang: str = "en",
    *,
    forms: Collection[str] = (),
    figures: bool = True,
    appendix: bool = False,
) -> list[Path]:
    """Write `report.md` (or `report.ko.md`) and its figures into the folder `out`.

    The report of a run is `REPORT.md`.

    `forms`: of `REPORT_FORMS`, what is written beside the Markdown. Returns what was written.
    Without matplotlib the report says so and comes without figures.

    Raises:
        OSError: the folder cannot be written.
    """
    document = _as_document(view)
    view = document.suite
    out.mkdir(parents=True, exist_ok=True)
    links: dict[str, str] | None = None
    paths: list[Path] = []
    if figures:
        links, paths = _write_figures(document, out, lang)
    pictures = captions.copy_pictures(view, out / "pictures")
    pictures |= answers.copy_pictures(view, out / "pictures")
    paths += [out / link for link in pictures.values()]
    text = kinds.render(document, lang, links, pictures, appendix=appendix)
    stem = "REPORT" if document.kind == "run" else "report"
    report = out / (f"{stem}.md" if lang == "en" else f"{stem}.{lang}.md")
    _write_atomic(report, text.encode())
    written = [report]
    for form in forms:
        written += _write_form(text, report, form, lang)
    return [*written, *paths]


def _write_form(text: str, report: Path, form: str, lang: str) -> list[Path]:
    """Write the report `text` in one of `REPORT_FORMS` beside its Markdown."""
    if form in ("csv", "parquet"):
        tables = report.parent / ("tables" if lang == "en" else f"tables.{lang}")
        return table_files.write_tables(text, tables, form)
    if form == "notion":
        path = report.with_suffix(".notion.zip")
        data = render_notion(text, report.parent, report.name)
    else:
        path = report.with_suffix(f".{form}")
        page = render_html(text, report.parent, lang) if form == "html" else render_latex(text)
        data = page.encode()
    _write_atomic(path, data)
    return [path]


def append_step_summary(text: str, path: Path, lang: str = "en") -> bool:
    """Append a report to the file that GITHUB_STEP_SUMMARY names; True: it was cut.

    GitHub drops a summary of more than 1 MiB without a word.

    Raises:
        OSError: the file cannot be written.
    """
    room = SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
    data = text.encode() + b"\n"
    cut = len(data) > room
    if cut:
        note = translate("summary cut", lang).format(len(data) // 1024)
        kept = data[: max(0, room - len(note.encode()) - len(FENCE + FOLD_END) - 2)]
        kept = kept[: kept.rfind(b"\n") + 1]
        data = kept + f"{_open_parts(kept.decode())}\n{note}\n".encode()
    with path.open("ab") as file:
        file.write(data)
    return cut


def _open_parts(text: str) -> str:
    """What ends the code block and the fold in which a report was cut: the note is in neither."""
    fence = FENCE if len(re.findall(r"^```", text, flags=re.MULTILINE)) % 2 else ""
    is_folded = text.count("<details>") > text.count("</details>")
    return fence + (FOLD_END if is_folded else "")


def _write_figures(
    document: DocumentView, out: Path, lang: str
) -> tuple[dict[str, str], list[Path]]:
    """Links by name, under `""` a remark on them; and the files."""
    try:
        import results.report.figures as figures_module
    except ModuleNotFoundError as error:
        reason = translate("figure.missing", lang).format(error.name)
        return {"": reason}, []
    drawn = figures_module.draw_figures(document, lang)
    if not drawn.figures:
        return {"": translate("figure.none", lang)}, []
    folder = "figures" if lang == "en" else f"figures.{lang}"
    (out / folder).mkdir(exist_ok=True)
    links = {"": translate("figure.no font", lang)} if drawn.lacks_font else {}
    paths = []
    for name, formats in drawn.figures.items():
        links[name] = f"{folder}/{name}.svg"
        for suffix, data in formats.items():
            path = out / folder / f"{name}.{suffix}"
            _write_atomic(path, data)
            paths.append(path)
    return links, paths


def _write_atomic(path: Path, data: bytes) -> None:
    with atomic_path(path) as draft:
        draft.write_bytes(data)
