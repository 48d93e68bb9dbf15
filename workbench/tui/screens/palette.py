"""Entries of the command palette: actions, suites, runs, subsets, settings, pages of the docs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from results.text.formats import count_noun
from results.text.sanitize import clean_line
from workbench.tui.screens.dialogs import MessageDialog

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.form_fields import Setting

DOCS: Final = Path(__file__).parents[3] / "docs"
"""Of a source checkout; an installed package has none."""
MAX_RUNS: Final = 1_000
PAGE_CELLS: Final = 70
"""Width of a page of the docs in its dialog."""


class PaletteEntry(NamedTuple):
    """A name to search for, what it does, and a word about it."""

    name: str
    run: Callable[[], object]
    help: str = ""


class PaletteContent(NamedTuple):
    """What is read from files for the palette."""

    runs: tuple[ListedRun, ...] = ()
    subsets: tuple[tuple[str, str], ...] = ()
    """Name and title."""
    settings: tuple[tuple[str, Setting], ...] = ()
    """Engine and setting."""
    pages: tuple[Path, ...] = ()


def read_content(log_root: Path, cache_root: Path) -> PaletteContent:
    """Runs, subsets, settings and pages; what cannot be read is left out. Call it in a thread."""
    from engines import catalog as engine_catalog
    from results.records.migrations import NewerSchemaError
    from workbench.reporting import run_listing
    from workbench.tui.view_models import catalog, form_fields

    try:
        runs, _ = run_listing.read_runs(log_root, cache_root)
    except (OSError, NewerSchemaError):
        runs = []
    subsets = catalog.read_subsets(cache_root, [])
    settings = [
        (name, setting)
        for name in engine_catalog.names()
        if name != "probe"
        for setting in form_fields.settings_of_schema(
            engine_catalog.load(name).Params.model_json_schema()
        )
    ]
    return PaletteContent(
        tuple(runs[: -MAX_RUNS - 1 : -1]),
        tuple((entry.name, entry.title) for entry in subsets),
        tuple(settings),
        tuple(sorted(DOCS.glob("*.md"))) if DOCS.is_dir() else (),
    )


def list_entries(app: WorkbenchApp, content: PaletteContent) -> list[PaletteEntry]:
    """All entries, actions of the present screen first."""
    return [
        *_action_entries(app), *_screen_entries(app), *_suite_entries(app),
        *(_run_entry(app, run) for run in content.runs),
        *(_subset_entry(app, *subset) for subset in content.subsets),
        *(_setting_entry(app, *setting) for setting in content.settings),
        *(_page_entry(app, page) for page in content.pages),
    ]  # fmt: skip


def _action_entries(app: WorkbenchApp) -> Iterator[PaletteEntry]:
    names: set[str] = set()
    for key, active in app.screen.active_bindings.items():
        binding = active.binding
        title = binding.description or binding.action.partition("(")[0].replace("_", " ")
        title = title.removeprefix("app.")
        moves = binding.action.startswith(("scroll_", "move", "page", "jump", "switch_mode"))
        if binding.system or moves or title in names:
            continue
        names.add(title)
        run = partial(app.run_action, binding.action, active.node)
        yield PaletteEntry(title, run, f"key {app.get_key_display(binding) or key}")


def _screen_entries(app: WorkbenchApp) -> Iterator[PaletteEntry]:
    for mode in app.MODES:
        yield PaletteEntry(f"screen {mode}", partial(app.switch_mode, mode))
    for theme in app.theme_names:
        yield PaletteEntry(f"theme {theme}", partial(app.choose_theme, theme), "colours")


def _suite_entries(app: WorkbenchApp) -> Iterator[PaletteEntry]:
    for suite in app.suites or ():
        show = partial(app.show_suite, suite.folder)
        yield PaletteEntry(
            f"suite {suite.name}", show, f"{suite.state}, {count_noun(suite.runs, 'run')}"
        )


def _run_entry(app: WorkbenchApp, run: ListedRun) -> PaletteEntry:
    from workbench.tui.screens.record import RecordScreen

    summary = run.summary
    names = (summary.label, "/".join(summary.key))
    title = clean_line(" ".join(name for name in names if name), 120)

    def show() -> None:
        path = app.log_root / "results.jsonl"
        app.push_screen(RecordScreen(path, summary.key, summary.offset))

    return PaletteEntry(f"run {title}", show, summary.cause)


def _subset_entry(app: WorkbenchApp, name: str, title: str) -> PaletteEntry:
    return PaletteEntry(f"subset {name}", partial(app.show_subset, name), title)


def _setting_entry(app: WorkbenchApp, engine: str, setting: Setting) -> PaletteEntry:
    default = "not set" if setting.default is None else str(setting.default)
    limits = ", ".join(map(str, setting.choices)) if setting.choices else setting.kind
    text = f"{setting.about}\n\n{engine}; default {default}; {limits}\n\n--set {setting.name}=…"
    dialog = partial(MessageDialog, setting.name, text)
    return PaletteEntry(
        f"setting {setting.name} ({engine})", lambda: app.push_screen(dialog()),
        clean_line(setting.about, 100),
    )  # fmt: skip


def _page_entry(app: WorkbenchApp, page: Path) -> PaletteEntry:
    def show() -> None:
        from results.text.terminal_document import render_document

        text = page.read_text(encoding="utf-8")
        app.push_screen(MessageDialog(page.stem, render_document(text, PAGE_CELLS, styled=False)))

    return PaletteEntry(f"docs {page.stem}", show, f"page {page.name}")
