"""What can be done with the runs of a list: export, notes, trash, report."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast

from textual import work
from textual.binding import Binding, BindingType

from results.text import formats
from workbench.output_language import chosen_language
from workbench.tui.screens.dialogs import ChoiceDialog
from workbench.tui.screens.footer_keys import FooterKeys
from workbench.tui.system import cli_commands
from workbench.tui.view_models.cells import GridColumn
from workbench.tui.view_models.results import export

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.results.rows import ResultTable, RunKey

REPORT_FORMS: Final = {
    "en": "English, Markdown", "en html": "English, Markdown and HTML",
    "en tex": "English, Markdown and LaTeX", "ko": "Korean, Markdown",
    "ko html": "Korean, Markdown and HTML", "ko tex": "Korean, Markdown and LaTeX",
}  # fmt: skip
"""Language and form of a report -> name."""


class RunActions(FooterKeys):
    """A screen with a list of runs, one of them under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "export", "Export"),
        Binding("w", "report", "Report of marked runs, or suite", show=False),
        Binding("n", "note", "Note on the suite", show=False),
        Binding("t", "trash", "Put into the trash", show=False),
        Binding("u", "restore", "Take back from the trash", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[RunKey] = []
        """Marked runs, in the order of their marks."""
        self._trashed: list[RunKey] = []
        """Runs that were put into the trash while the screen was open."""

    @property
    @abstractmethod
    def current(self) -> ListedRun | None:
        """The run under the cursor; None: there is none, or a group's heading."""

    @abstractmethod
    def exported_table(self) -> ResultTable:
        """The runs that an export is about."""

    @abstractmethod
    def read_again(self) -> None:
        """Read what has changed in the files."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    @property
    def path(self) -> Path:
        """results.jsonl of the log root."""
        return self.bench.log_root / "results.jsonl"

    def action_export(self) -> None:
        """Export the marked runs, else the shown ones."""
        table = self.exported_table()
        runs = export.list_runs(table)
        if not runs:
            self.notify("There is nothing to export.")
            return

        def on_choice(kind: str | None) -> None:
            if kind is not None:
                self._export(table, kind)

        columns = (GridColumn("name", "", 30, grow=60),)
        names = [(name,) for _, name in export.KINDS]
        title = f"Export {formats.count_noun(len(runs), 'run')}"
        self.app.push_screen(
            ChoiceDialog(title, columns, names, [key for key, _ in export.KINDS]), on_choice
        )

    @work(group="export")
    async def _export(self, table: ResultTable, kind: str) -> None:
        path = export.choose_path(self.bench.log_root, kind)
        problem, runs = "", export.list_runs(table)
        if kind == "md":
            try:
                export.write_markdown(table, path)
            except OSError as error:
                problem = f"{path.parent}: {error.strerror}"
        else:
            outcome = await cli_commands.run_workbench(
                cli_commands.export_arguments(path, self.bench.log_root), export.run_lines(runs)
            )
            problem = outcome.problem
        if problem:
            self.notify(problem, title="Not written", severity="error", timeout=15)
        else:
            self.notify(str(path), title=f"{formats.count_noun(len(runs), 'run')} written")

    def action_note(self) -> None:
        """Add a note on the suite under the cursor."""
        from workbench.tui.screens import suite_notes

        if (run := self.current) is None:
            self.notify("There is no run whose suite could take a note.")
            return
        suite_notes.add_suite_note(self.app, self.bench.log_root, run.summary.suite)

    def action_trash(self) -> None:
        """Put the run under the cursor into the trash, or take it out; nothing is deleted."""
        if (run := self.current) is not None and self._set_trashed(
            run.summary.key, "" if run.is_trashed else "from the screen"
        ):
            motion = "taken out of" if run.is_trashed else "put into"
            self.notify(
                "u takes it back; in:trash lists what is in it.", title=f"{motion} the trash"
            )
            self._trashed.append(run.summary.key)

    def action_restore(self) -> None:
        """Take the last trashed run back."""
        if not self._trashed:
            self.notify("Nothing was put into the trash here; in:trash lists what is in it.")
        elif self._set_trashed(self._trashed[-1], ""):
            self._trashed.pop()

    def _set_trashed(self, key: RunKey, reason: str) -> bool:
        from workbench.reporting import note_writer

        try:
            note_writer.add_note(self.bench.log_root, key, "tombstone", reason)
        except (OSError, note_writer.NoteError) as error:
            self.notify(str(error), title="Not noted", severity="error")
            return False
        self.read_again()
        return True

    def action_report(self) -> None:
        """Write the report of the marked runs, else of the suite under the cursor."""
        names = ["/".join(key) for key in self.marked]
        if not names and self.current is None:
            self.notify("There is no run whose suite could be reported.")
            return
        if not names and self.current is not None:
            names = [self.current.summary.suite]
        subject = formats.count_noun(len(self.marked), "marked run") if self.marked else names[0]

        def on_choice(key: str | None) -> None:
            if key is not None:
                lang, _, form = key.partition(" ")
                self._write_report(names, lang, form)

        columns = (GridColumn("name", "", 30, grow=20),)
        keys = sorted(REPORT_FORMS, key=lambda key: not key.startswith(chosen_language()))
        rows = [(REPORT_FORMS[key],) for key in keys]
        self.app.push_screen(ChoiceDialog(f"Report of {subject}", columns, rows, keys), on_choice)

    @work(exclusive=True, group="report")
    async def _write_report(self, names: list[str], lang: str, form: str) -> None:
        root = self.bench.log_root
        out = root / names[0] / "report"
        if self.marked:
            out = root / "exports" / f"report-{time.strftime('%Y%m%d-%H%M%S')}"
        self.notify(f"Writing the report of {', '.join(names)} …")
        outcome = await cli_commands.run_workbench(
            cli_commands.report_arguments(names, root, out, lang, form)
        )
        if outcome.problem:
            self.notify(outcome.problem, title="No report", severity="error", timeout=15)
        else:
            self.notify(str(out), title="Report written")
