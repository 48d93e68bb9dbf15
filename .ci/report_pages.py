"""The pages of docs/reports: each kind of report that our users write, from input to output.

python .ci/report_pages.py              writes the pages from the stored views
python .ci/report_pages.py --check      exit code 1 and one line for each page that is out of date
python .ci/report_pages.py --measure [NAME…]    first runs the commands of the pages (minutes)

A view is what `workbench report` gives to `python -m results.report`; a page has the Markdown of
it, up to the folded details.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from pydantic import BaseModel

from results import report
from results.comparison.document_view import DocumentView
from workbench import paths
from workbench.reporting import document, period, selection, suite_view
from workbench.suites import suite

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/reports"
NOTE = "Written by `make reference`"


class ReportPage(BaseModel):
    """A page; see report_pages.toml."""

    name: str
    title: str
    about: str
    commands: tuple[str, ...]
    kind: str = ""
    sections: tuple[str, ...] = ()
    """Headings of the report's sections and subsections that are shown; none: all."""

    @property
    def plan(self) -> Path:
        """The plan that its commands run; it need not be there."""
        return FOLDER / f"plans/{self.name}.toml"

    @property
    def view(self) -> Path:
        """What its output is made from: a view, or text."""
        return FOLDER / f"views/{self.name}.{'json' if self.kind else 'txt'}"


def read_pages() -> list[ReportPage]:
    """All pages in their order."""
    table = tomllib.loads((ROOT / ".ci/report_pages.toml").read_text("utf-8"))
    return [ReportPage.model_validate(entry) for entry in table["page"]]


def measure(page: ReportPage) -> None:
    """Run the page's commands in an empty folder and store what its report is made of."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "WORKBENCH_LOG_ROOT": ""}
        if page.plan.is_file():
            shutil.copy(page.plan, folder)
        printed = [
            subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, text=True,
                stdout=subprocess.PIPE, check=page.kind != "",
            ).stdout
            for command in page.commands
        ]  # fmt: skip
        text = "\n".join(printed)
        if page.kind:
            view = read_view(folder / "bench_logs", page)
            text = view.model_dump_json(exclude_defaults=True).replace(f"{name}/", "") + "\n"
            text = text.replace(str(paths.cache_root()), "~/.cache/workbench")
            text = text.replace(f'"hostname":"{socket.gethostname()}"', '"hostname":"host"')
        page.view.write_text(text, "utf-8")


def read_view(log_root: Path, page: ReportPage) -> DocumentView:
    """What the page's last command prints: of the suites that it names, else of the only one.

    Without the curves, which figures alone need.
    """
    records = suite_view.read_records(log_root)
    words = shlex.split(page.commands[-1])[2:]
    named = list(takewhile(lambda word: not word.startswith("-"), words))
    if page.kind == "weekly":
        days = period.parse_period("7d", None, datetime.now(UTC))
        chosen = selection.select_by_period(log_root, days, records)
    else:
        days, names = None, named or [str(suite.find_suite(log_root, None))]
        chosen = selection.select_by_names(log_root, names, records)
    request = document.DocumentRequest(log_root, chosen, page.kind, days)
    (view,) = document.build_documents(request, records)
    return view.model_copy(update={"suite": view.suite.model_copy(update={"curves": {}})})


def render_page(page: ReportPage) -> str:
    """A page: what it is for, its input, its commands, its output."""
    has_plan = page.plan.is_file()
    note = f"{NOTE}; the output was measured on two busy CPU cores." if has_plan else f"{NOTE}."
    parts = [f"# {page.title}\n\n{page.about.strip()}\n\n{note}\n"]
    if has_plan:
        text = page.plan.read_text("utf-8").removeprefix("schema = 1\n")
        parts.append(f"## Input\n\n`{page.plan.name}`:\n\n```toml\n{text}```\n")
    lines = "\n".join(f"    {command}" for command in page.commands)
    parts.append(f"## Commands\n\n{lines}\n\n`--lang ko` gives the last in Korean.\n")
    parts.append(f"## Output\n\n{render_output(page)}")
    return "\n".join(parts)


def render_output(page: ReportPage) -> str:
    """The output with headings two levels down, without the details that a report folds."""
    text = page.view.read_text("utf-8")
    if page.kind:
        text = report.render(DocumentView.model_validate_json(text), "en")
    shown, folded, _ = text.partition("<details>")
    shown = re.sub("```.*?^```", _hide_marks, shown, flags=re.MULTILINE | re.DOTALL)
    head, *sections = re.split(r"^(?=###? )", shown, flags=re.MULTILINE)
    if page.sections:
        kept = (s for s in sections if s.splitlines()[0].lstrip("# ") in page.sections)
        shown = head + "".join(kept)
    shown = re.sub(r"^(#+) ", r"\1## ", shown, flags=re.MULTILINE).strip().replace("\0", "")
    rest = "\n\nSettings, environment and measurements follow, folded." if folded else ""
    if page.sections:
        rest = "\n\nThe report's other sections are left out here."
    return f"{shown}{rest}\n"


def _hide_marks(block: re.Match[str]) -> str:
    """A block of code whose comments are no headings."""
    return re.sub("^#", "\0#", block[0], flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Entry point."""
    pages = read_pages()
    if arguments[:1] == ["--measure"]:
        for page in pages:
            if page.name in (arguments[1:] or [page.name]):
                measure(page)
    stale = 0
    for page in pages:
        path, text = FOLDER / f"{page.name}.md", render_page(page)
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if arguments == ["--check"]:
            print(f"docs/reports/{path.name} is out of date; run `make reference` and commit it")
        else:
            path.write_text(text, "utf-8")
    return min(stale, 1) if arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
