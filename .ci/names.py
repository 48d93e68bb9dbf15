"""Names that say nothing: participles, pronouns and bare verbs must not be bound or defined.

Verbs end in -ize, in names and prose.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("workbench", "engines", "datasets_mm", "results", "benchmarks")
NOT_NOUNS = {
    "found", "said", "asked", "told", "made", "known", "seen", "given", "taken", "left", "wanted",
    "spoken", "tried", "one", "own", "place", "what", "where", "why", "things",
}  # fmt: skip
NOT_VERBS = {"of", "look", "say", "own", "take", "tell", "stand", "clear", "follow", "leave"}
"""A function is a verb and its object."""
BRITISH = re.compile(
    r"(?i)(equali|initiali|materiali|normali|optimi|organi|quanti|recogni|seriali|summari|synchroni"
    r"|tokeni)s(e|ing|ation|er)"
)
STORED = ("normalisation", "normalises over the batch")
"""A fact and an error of records."""
ALLOWED = {
    ("datasets_mm/profile/profile.py", "place"),  # written in profiles
    ("workbench/planning/plan.py", "why"),  # typed in plans
    ("workbench/planning/run_matrix.py", "why"),  # typed in plans
    ("workbench/suites/control.py", "why"),  # written in control.jsonl
    ("workbench/suites/warden_file.py", "place"),  # written in warden.json
    ("workbench/tui/system/terminal_driver.py", "clear()"),  # of threading.Event
}
"""(file, name) of what is stored, typed or overridden."""


def list_bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every binding: variables, parameters, fields, functions."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.arg():
                yield node.lineno, node.arg
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name in NOT_VERBS:
                yield node.lineno, f"{node.name}()"
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name in NOT_NOUNS:
                yield node.lineno, node.name
            case ast.ExceptHandler(name=str()) | ast.MatchAs(name=str()):
                yield node.lineno, node.name


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    count = 0
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text("utf-8")
        for line, words in enumerate(text.splitlines(), 1):
            if (match := BRITISH.search(words)) and not any(part in words for part in STORED):
                print(f"{path.relative_to(ROOT)}:{line}: {match[0]}, which ends in -ize here")
                count += 1
        for line, name in list_bindings(ast.parse(text)):
            bad = name.lstrip("_") in NOT_NOUNS or name.endswith("()")
            if bad and (file := path.relative_to(ROOT).as_posix(), name) not in ALLOWED:
                print(f"{file}:{line}: {name}")
                count += 1
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main())
