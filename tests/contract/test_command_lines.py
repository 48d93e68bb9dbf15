"""Every `workbench …` in README and docs is a command line that the real parser takes.

Nothing is executed here (`tests/documents` does). Code blocks are parsed whole; code within a
sentence may leave arguments out.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from engines import catalog
from tests.fixtures.command_lines import PAGES, ROOT, command_lines, workbench_calls
from workbench.cli.main import app
from workbench.planning import plan

NOTEBOOKS = sorted(ROOT.glob("examples/notebooks/*.ipynb"))
COMMANDS: Any = typer.main.get_command(app)
SETTINGS = {key for name in catalog.names() for key in catalog.load(name).Params.model_fields}


def check(words: list[str], *, whole: bool) -> str:
    """What is wrong with a command line; empty: nothing."""
    command, words = COMMANDS, list(words)
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        if words[0] not in command.commands:
            return f"no command '{words[0]}'"
        command = command.commands[words.pop(0)]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    for word in words:
        option = word.partition("=")[0]
        if re.match(r"--?[a-z]", option) and option not in known:
            return f"{command.name} has no {option}"
    keys = {b.partition("=")[0] for a, b in itertools.pairwise(words) if a == "--set" and "=" in b}
    if unknown := keys - SETTINGS:
        return f"no setting {', '.join(sorted(unknown))}"
    if not whole or any("…" in word or "..." in word for word in words):
        return ""
    try:
        command.make_context(command.name, words)
    except Exception as error:  # click's own, whatever the library that carries it
        describe = getattr(error, "format_message", None)
        return str(describe() if describe else error)
    for flag in ("-p", "--preset"):
        if flag in words and words[words.index(flag) + 1] not in plan.preset_files():
            return f"no preset '{words[words.index(flag) + 1]}'"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_line_of_a_page_parses(page: Path) -> None:
    problems = []
    for line, whole in command_lines(page.read_text("utf-8")):
        if "─" in line:  # a diagram
            continue
        told = [check(words, whole=whole) for words in workbench_calls(line)]
        problems += [f"{line}: {problem}" for problem in told if problem]
    assert not problems, "\n".join(problems)


def argument_text(argument: ast.expr) -> str:
    """An argument of a notebook's call: a variable is a duration, an f-string a setting."""
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    return "11h" if isinstance(argument, ast.Name) else "data_root=a"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_command_of_a_notebook_parses(path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    calls = [
        call
        for code in codes
        for call in ast.walk(ast.parse(re.sub(r"^( *)%.*", r"\1pass", code, flags=re.MULTILINE)))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    ]
    told = []
    for call in calls:
        prefix = {"workbench": [], "run_or_resume": ["run"]}.get(call.func.id)
        if prefix is None or any(isinstance(word, ast.Starred) for word in call.args):
            continue
        words = [argument_text(argument) for argument in call.args]
        told.append(check([*prefix, *words], whole=all(map(str.isascii, words))))
    assert len(told) >= 2
    assert not any(told), told


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("workbench rnu plan.toml", "no command"),
        ("workbench run --preset demo --no-such", "run has no --no-such"),
        ("workbench run -p dmo", "no preset 'dmo'"),
        ("workbench run --repeats many", "valid integer"),
        ("workbench run -d emoji_train --set batch_size=64", "no setting batch_size"),
        ("workbench data describe", "Missing argument"),
        ("workbench run plan.toml --until soon", "no duration"),
        ("workbench run plan.toml --until 11h30m  # stops", ""),
        ("WORKBENCH_CACHE=/x workbench ps; workbench stop", ""),
    ],
)
def test_what_a_wrong_line_is_told(line: str, problem: str) -> None:
    ((text, _), *_) = command_lines(f"    {line}")
    calls = workbench_calls(text)
    assert calls
    told = "".join(check(words, whole=True) for words in calls)
    assert problem in told if problem else told == ""
