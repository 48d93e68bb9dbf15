"""Documents of a release name what the code has: promises their tests, the changelog its words."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from results.text import renamed_words

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")


def promise_rows() -> Iterator[tuple[str, str]]:
    """Threat and tests of each row of the promises."""
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    table = text.partition("## What is promised")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if line.startswith("| ") and not line.startswith("| against"):
            cells = line.strip("|").split(" | ")
            yield cells[0].strip(), cells[-1]


@pytest.mark.parametrize(("threat", "tests"), list(promise_rows()), ids=lambda text: str(text)[:30])
def test_every_promise_of_security_names_tests_that_exist(threat: str, tests: str) -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
    assert named, f"{threat}: no test"
    for file, name in named:
        texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob(file)]
        assert any(re.search(rf"^(async )?def {name}\(", t, re.MULTILINE) for t in texts), name


def test_the_changelog_begins_with_this_version_and_has_every_renamed_word() -> None:
    assert re.findall(r"^## (\S+)", CHANGELOG, re.MULTILINE)[0] == PROJECT["version"]
    rows = re.findall(r"^\| [\w` (.)]+ \| (.+) \| (.+) \|$", CHANGELOG, re.MULTILINE)
    tables = (
        renamed_words.SETTINGS, renamed_words.PLAN_KEYS, renamed_words.OPTIONS,
        renamed_words.COMMANDS,
    )  # fmt: skip
    for earlier, name in (pair for table in tables for pair in table.items()):
        assert any(f"`{earlier}" in left and f"`{name}" in right for left, right in rows), earlier


def test_extras_of_the_earlier_version_are_those_of_this() -> None:
    extras = PROJECT["optional-dependencies"]
    rows = dict(re.findall(r"^\| extra \| (.+) \| (.+) \|$", CHANGELOG, re.MULTILINE))
    renamed = {
        earlier: name.strip("`")
        for left, name in rows.items()
        for earlier in re.findall(r"`([\w-]+)`", left)
    }
    for earlier, name in renamed.items():
        expected = [] if name.startswith("none") else [f"workbench-mm[{name}]"]
        assert extras[earlier] == expected, earlier
    every = re.findall(r"[\w-]+", extras["all"][0].partition("[")[2])
    assert set(every) == extras.keys() - renamed.keys() - {"all"}
