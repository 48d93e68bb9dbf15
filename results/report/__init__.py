"""Reports of a suite as Markdown, with figures beside them when asked.

`render` and `write` are the whole interface; `python -m results.report` is the same for processes
that must not load matplotlib themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

from results.records.suite_view import SuiteView
from results.report import answers, captions, weekly
from results.text.translations import say

__all__ = ["render", "write"]


def render(view: SuiteView, lang: str = "en", *, appendix: bool = False) -> str:
    """The report as Markdown, without figures and without touching the disk."""
    return weekly.render(view, lang, appendix=appendix)


def write(
    view: SuiteView, out: Path, lang: str = "en", *, figures: bool = True, appendix: bool = False
) -> list[Path]:
    """Write `report.md` (or `report.ko.md`) and its figures into the folder `out`.

    Returns what was written. Without matplotlib the report says so and comes without figures.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    links: dict[str, str] | None = None
    drawn: list[Path] = []
    if figures:
        links, drawn = _draw(view, out, lang)
    pictures = captions.copy_pictures(view, out / "pictures")
    pictures |= answers.copy_pictures(view, out / "pictures")
    drawn += [out / link for link in pictures.values()]
    text = weekly.render(view, lang, links, pictures, appendix=appendix)
    report = out / ("report.md" if lang == "en" else f"report.{lang}.md")
    _replace(report, text.encode())
    return [report, *drawn]


def _draw(view: SuiteView, out: Path, lang: str) -> tuple[dict[str, str], list[Path]]:
    try:
        import results.report.figures as drawing
    except ModuleNotFoundError as error:
        why = say("figure.missing", lang).format(error.name)
        return {"": why}, []
    drawings = drawing.draw(view, lang)
    if not drawings:
        return {"": say("figure.none", lang)}, []
    (out / "figures").mkdir(exist_ok=True)
    links, paths = {}, []
    for name, formats in drawings.items():
        links[name] = f"figures/{name}.svg"
        for suffix, data in formats.items():
            path = out / "figures" / f"{name}.{suffix}"
            _replace(path, data)
            paths.append(path)
    return links, paths


def _replace(path: Path, data: bytes) -> None:
    """Write beside and rename: a reader never sees half a report."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
