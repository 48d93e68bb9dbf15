"""docs/faults.md names every fault once, and only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def test_every_fault_is_named_once_and_its_tests_exist() -> None:
    rows = ROW.findall((ROOT / "docs/faults.md").read_text())
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    files: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):  # a search has tests of two kinds
        files[path.name] = files.get(path.name, "") + path.read_text()
    tried = 0
    for number, _, _, tests, outcome in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", files[file], re.MULTILINE), (number, name)
        tried += bool(named) and outcome.startswith("passes")
        assert named or "not tried here" in outcome, f"fault {number} has neither test nor reason"
    assert tried >= 150


def test_every_finding_of_the_review_has_tests_that_exist() -> None:
    text = (ROOT / "docs/faults.md").read_text()
    rows = dict(re.findall(r"^\| ([A-D]\d+) \| .+? \| (.+?) \|$", text, re.MULTILINE))
    sizes = {"A": 7, "B": 11, "C": 9, "D": 7}
    assert set(rows) == {f"{kind}{n}" for kind, most in sizes.items() for n in range(1, most + 1)}
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    for finding, tests in rows.items():
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
        assert named, finding
        for file, name in named:
            assert re.search(rf"^def {name}\(", files[file].read_text(), re.MULTILINE), name
