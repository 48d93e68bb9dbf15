"""Every command line of README, docs and examples is run: `make docs-commands`, some minutes.

Each page has an empty folder; HOME, data and cache (unless WORKBENCH_CACHE names one that is kept)
lie in one sandbox. `commands.toml` says what stands for the placeholders of a page, what is there
before its first line, and which lines cannot run on any machine, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_command_lines import check
from tests.fixtures.command_lines import PAGES, ROOT, command_lines, workbench_calls
from tests.fixtures.terminals import Terminal

HERE = Path(__file__).parent
TABLE: dict[str, Any] = tomllib.loads((HERE / "commands.toml").read_text("utf-8"))
NOT_RUN = {line: part["reason"] for part in TABLE["not_run"] for line in part["lines"]}
OUTSIDE = re.compile(r"(?<![\w./~-])/(data|models|abs|photos|content|kaggle|scratch)\b")
"""Places of a reader's machine; here they lie in the sandbox."""
LIMIT = 900


def lines_of(page: Path) -> list[str]:
    """The page's command lines in its order, each once: blocks, and whole commands in sentences."""
    lines: dict[str, None] = {}
    text = page.read_text("utf-8").partition("\n## Output\n")[0]  # a report names commands, too
    for line, in_block in command_lines(text):
        calls = workbench_calls(line)
        plain = re.sub(r"\s+#\s.*$", "", line)
        if not calls or "─" in line:
            continue
        if in_block or is_whole(plain, calls):
            lines[plain] = None
    return list(lines)


def is_whole(line: str, calls: Sequence[Sequence[str]]) -> bool:
    """Whether code in a sentence is a command with arguments, and not only the name of one."""
    words = [word for call in calls for word in call]
    names_only = "--help" in words or (
        len(words) < 3 and not any(word.startswith("-") for word in words)
    )
    open_end = re.search(r"…|\.\.\.|\[[A-Z/-]|\w\|\w", line)
    return not names_only and not open_end and not any(check(call, whole=True) for call in calls)


def entry_of(page: Path) -> dict[str, Any]:
    entry: dict[str, Any] = TABLE["page"].get(page.relative_to(ROOT).as_posix(), {})
    return entry


WITH_LINES = [page for page in PAGES if lines_of(page) and "run_by" not in entry_of(page)]
LONG = pytest.mark.skipif(
    not os.environ.get("WORKBENCH_DOCUMENTS"), reason="trains models: `make docs-commands`"
)


def page_parameter(page: Path) -> Any:
    """A page with its name, skipped in CI unless the table calls it short."""
    name = page.relative_to(ROOT).as_posix()
    return pytest.param(page, id=name, marks=() if name in TABLE["short"] else LONG)


def write_data(sandbox: Path) -> None:
    """Small copies of the data that pages speak of, and a CLIP; once a session."""
    if (sandbox / "data").exists():
        return
    from tests.fixtures import thin_clip  # imports torch

    thin_clip.write(sandbox / "models/my-clip")
    run_line("workbench data make-copy --out data/ReT-M2KR", sandbox, sandbox)
    (sandbox / "data/M2KR").symlink_to("ReT-M2KR")
    small = "workbench data make-copy --layout vqa-challenge --out data/challenge"
    run_line(small, sandbox, sandbox)


def environment(sandbox: Path, folder: Path) -> dict[str, str]:
    scripts = Path(sys.executable).parent
    return {
        "PATH": f"{scripts}:/usr/bin:/bin", "HOME": str(sandbox / "home"), "LANG": "C.UTF-8",
        "WORKBENCH_LOCKS": os.environ["WORKBENCH_LOCKS"], "SHELL": "/bin/bash", "COLUMNS": "120",
        "WORKBENCH_CACHE": os.environ.get("WORKBENCH_CACHE", str(sandbox / "cache")),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }  # fmt: skip


def run_line(line: str, folder: Path, sandbox: Path, codes: Sequence[int] = (0,)) -> str:
    """Output of a line of bash. Raises: AssertionError: another exit code than one of `codes`."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(sandbox, folder), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode in codes, f"{line}\nexit code {done.returncode}\n{done.stdout[-3000:]}"
    assert "Traceback (most recent call last)" not in done.stdout, f"{line}\n{done.stdout[-3000:]}"
    return done.stdout


def type_line(line: str, folder: Path, sandbox: Path, dialogue: Sequence[Sequence[str]]) -> None:
    """Run a line at a terminal: when a text is on the screen, the keys behind it are typed."""
    start = f"import os; os.chdir({str(folder)!r}); os.execvp('bash', ['bash', '-c', {line!r}])"
    terminal = Terminal(["-c", start], (120, 36), **environment(sandbox, folder))
    for text, keys in dialogue:
        terminal.until(text, LIMIT)
        terminal.press(keys.encode())
    code = terminal.wait(LIMIT)
    assert code == 0, f"{line}\nexit code {code}\n{terminal.text}"


def prepare(page: Path, folder: Path, sandbox: Path) -> dict[str, Any]:
    """Put plans and the page's own code blocks in their places, and run what comes before it."""
    entry = entry_of(page)
    if re.search(r"[\s=:}]/(data|models)/", f"{lines_of(page)} {entry}"):
        write_data(sandbox)
    for place, name in entry.get("plans", {}).items():
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(HERE / "plans" / name, folder / place)
    blocks = re.findall(r"^```\w+\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for place, first in entry.get("blocks", {}).items():
        target = sandbox / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(OUTSIDE.sub(rf"{sandbox}/\1", next(b for b in blocks if first in b)))
    for line in entry.get("first", ()):
        run_line(line.format(sandbox=sandbox), folder, sandbox)
    return entry


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", [page_parameter(page) for page in WITH_LINES])
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path, sandbox: Path) -> None:
    entry = prepare(page, tmp_path, sandbox)
    like = entry.get("like")
    elsewhere = lines_of(ROOT / like) if like else ()
    failed = []
    for line in lines_of(page):
        if line in NOT_RUN or line in elsewhere:
            continue
        try:
            run_step(line, entry, tmp_path, sandbox)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed.append(str(error))
    assert not failed, "\n\n".join(failed)


def run_step(line: str, entry: dict[str, Any], folder: Path, sandbox: Path) -> None:
    """Run a line of a page, with what the table puts before, instead of and after it."""
    step = next((step for step in entry.get("step", ()) if step["line"] == line), {})
    text = f"{step.get('runs', line)} {TABLE['more'].get(line, '')}".rstrip()
    for word, meaning in entry.get("words", {}).items():
        stands_for = meaning.format(sandbox=sandbox, python=sys.executable)
        text = re.sub(rf"(?<![\w.-]){re.escape(word)}(?![\w.-])", stands_for, text)
    text = OUTSIDE.sub(rf"{sandbox}/\1", text)
    for before in step.get("before", ()):
        run_line(before.format(sandbox=sandbox), folder, sandbox)
    if "typed" in step:
        type_line(text, folder, sandbox, step["typed"])
    else:
        run_line(text, folder, sandbox, TABLE["codes"].get(line, (0,)))
    for after in step.get("after", ()):
        run_line(after, folder, sandbox)


def test_the_table_names_only_lines_that_pages_have() -> None:
    lines = {line for page in PAGES for line in lines_of(page)}
    assert not NOT_RUN.keys() - lines
    for name, entry in TABLE["page"].items():
        page_lines = lines_of(ROOT / name)
        assert not {step["line"] for step in entry.get("step", ())} - set(page_lines), name
    assert all(len(part["reason"]) > 10 for part in TABLE["not_run"])
    names = {page.relative_to(ROOT).as_posix() for page in WITH_LINES}
    assert set(TABLE["short"]) <= names


@LONG
def test_the_memory_audit_prints_what_its_page_shows(tmp_path: Path, sandbox: Path) -> None:
    """In an empty cache, since subsets that are built there change the longest sample."""
    page = next(page for page in PAGES if page.name == "memory-audit.md")
    codes = [TABLE["codes"].get(line, (0,)) for line in lines_of(page)]
    printed = [
        run_line(f"WORKBENCH_CACHE=$PWD/cache {line} 2>/dev/null", tmp_path, sandbox, allowed)
        for line, allowed in zip(lines_of(page), codes, strict=True)
    ]
    stored = ROOT / "docs/reports/views/memory-audit.txt"
    assert "\n".join(printed) == stored.read_text("utf-8")
