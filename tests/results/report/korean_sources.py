"""English sentences in the source that a Korean report has in Korean, and what is one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
HANGUL = re.compile("[가-힣]")
FUNCTION_WORDS = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "in", "is",
        "it", "no", "not", "of", "on", "or", "so", "than", "that", "the", "their", "this", "to",
        "was", "were", "which", "with", "without",
    )
)  # fmt: skip
ERRORS = frozenset(
    (
        "AmbiguousError", "BuildError", "DiskFullError", "EncodingError", "EngineError",
        "EngineStartError", "FoldError", "LineError", "LookupError", "NoCaptionError",
        "NoCheckpointError", "NoRoomError", "ProfileError", "ScanError", "SourceError",
        "TargetError", "UnknownEngineError", "UnusableError",
    )
)  # fmt: skip
"""Exceptions whose sentences end in a record or are printed by `workbench data`."""
BOUND = frozenset({
    "detail", "fact", "facts", "method", "methods", "missing", "reason", "reasons", "remark",
    "verdict",
})  # fmt: skip
"""Names of values and arguments whose sentences end in a record, a memory estimate or a note."""
VALUES = frozenset({"Difference", "Interval", "StepsForecast", "UnseenVariation", "VisibleGpus"})
"""Classes with a method or a reason among their arguments."""
ROOMS = ("engines", "datasets_mm", "workbench", "results")
OTHERS = (
    "workbench/cli", "workbench/doctor", "workbench/gate", "workbench/tui",
    "results/records/tracker_files.py",
    "workbench/supervisor/run_gpus.py",
)  # fmt: skip
"""Modules whose sentences are shown by commands and screens that are English alone."""


def english(page: str) -> list[str]:
    """Runs of four English words and more with a function word among them, outside of code."""
    page = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", " ", page, flags=re.DOTALL)
    page = re.sub(r"\b[a-z](?:, [a-z])+\b", " ", page)  # letters of answers
    return [
        run
        for run in re.findall(r"[A-Za-z][A-Za-z'-]*(?:,? [A-Za-z'-]+){3,}", page)
        if FUNCTION_WORDS & {word.strip(",").lower() for word in run.split()}
    ]


def sentences() -> Iterator[tuple[str, str, str]]:
    """(place, name of the fact or empty, sentence) of all of `ROOMS`; placeholders are 7."""
    for path in (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))):
        if str(path.relative_to(ROOT)).startswith(OTHERS):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        constants = {
            name.id: text
            for node in nodes
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            if isinstance(name := _target(node), ast.Name) and (text := text_of(node.value))
        }
        for node in nodes:
            for value in _spoken(node):
                for name, leaf in _leaves(value):
                    text = text_of(leaf) or constants.get(getattr(leaf, "id", ""), "")
                    if text:
                        yield f"{path.relative_to(ROOT)}:{leaf.lineno}", name, text


def _target(node: ast.Assign | ast.AnnAssign) -> ast.expr:
    return node.targets[0] if isinstance(node, ast.Assign) else node.target


def _spoken(node: ast.AST) -> list[ast.expr]:
    """Values of a node that are sentences of a record."""
    if isinstance(node, ast.Call):
        return _arguments(node)
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):  # a value and its reason
        return [value for value in node.value.elts if not isinstance(value, ast.Call)]
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return []
    target, value = _target(node), node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
        return [part for name, part in pairs if _name(name) in BOUND]
    if isinstance(target, ast.Subscript) and _name(target) in BOUND:
        return [ast.Dict([target.slice], [value])]
    return [value] if _name(target) in BOUND else []


def _name(target: ast.expr) -> str:
    if isinstance(target, ast.Subscript):
        return _name(target.value)
    return getattr(target, "id", getattr(target, "attr", ""))


def _arguments(call: ast.Call) -> list[ast.expr]:
    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if called == "notice" and len(call.args) > 1:
        return [call.args[1]]
    counted = called in ("skip", "note") and ast.unparse(call.func).endswith(f"report.{called}")
    if called in ERRORS or counted:
        return call.args[:1]
    texts = [word.value for word in call.keywords if word.arg in BOUND]
    texts += [word.value for word in call.keywords if called == "Notice" and word.arg == "text"]
    return texts + (call.args if called in VALUES else [])


def _leaves(value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Strings of an expression; those of a dictionary with their keys."""
    if isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp | ast.Name):
        yield "", value
    elif isinstance(value, ast.IfExp):
        yield from (*_leaves(value.body), *_leaves(value.orelse))
    elif isinstance(value, ast.BoolOp | ast.Tuple | ast.List):
        for part in value.values if isinstance(value, ast.BoolOp) else value.elts:
            yield from _leaves(part)
    elif isinstance(value, ast.Dict):
        for key, part in zip(value.keys, value.values, strict=True):
            for _, leaf in _leaves(part):
                yield (text_of(key) if key else ""), leaf
    elif isinstance(value, ast.Call):
        for part in value.args:
            yield from _leaves(part)


def text_of(node: ast.expr) -> str:
    """A literal as text, each place for a value as 7; empty: it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else _place(part)
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return (left or "7") + (right or "7") if left or right else ""
    return ""


def _place(part: ast.expr) -> str:
    quoted = isinstance(part, ast.FormattedValue) and part.conversion == ord("r")
    return "'7'" if quoted else "7"
