"""`--lang` before a command and after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli.main import app


@pytest.mark.parametrize(
    ("words", "said"),
    [(["ps"], "no suite is at work"), (["results", "compare", "-h"], "[default: ko]"),
     (["plan", "-h"], "[default: ko]"), (["plan", "-h", "--lang", "en"], "[default: en]")],
)  # fmt: skip
def test_a_language_before_a_command_is_that_of_the_command(
    words: list[str], said: str, tmp_path: Path
) -> None:
    """Also before one that speaks English only: `--lang ko` stands in aliases."""
    before = ["--log-root", str(tmp_path), "--lang", "ko"]
    if words[-1] == "en":
        words, said = ["plan", "--lang", "en", "--explain", "-p", "demo"], "Two small models"
    done = CliRunner().invoke(app, [*before, *words])
    assert (done.exit_code, said in done.output) == (0, True), done.output
