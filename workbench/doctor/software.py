"""Python and the packages, by their metadata: nothing heavy is imported to say which one it is."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workbench.doctor.finding import Finding, note, ok, problem
from workbench.memory_estimate import torch_build

OURS: Final = "workbench-mm"
SHOWN: Final = ("torch", "transformers", "pydantic", "textual", "pillow", "nvidia-ml-py")
_NEED: Final = re.compile(r"([A-Za-z0-9._-]+)((?:[<>=!~]=?[^;,\s]+,?)*)\s*(?:;(.*))?\Z")
_BOUND: Final = re.compile(r"(>=|<=|==|<|>)([0-9.]+)")


def examine() -> Iterator[Finding]:
    """Python, our packages, torch's build."""
    yield ok("python", f"{platform.python_version()} in {sys.prefix}")
    yield packages(needs())
    yield torch_finding()


def needs() -> list[str]:
    """The package's own requirements without extras; empty for a checkout that is not installed."""
    try:
        stated = importlib.metadata.requires(OURS) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line for line in stated if "extra ==" not in line]


def packages(stated: list[str]) -> Finding:
    """Whether what is required is there, in a version that fits."""
    if not stated:
        return note("packages", f"{OURS} is not installed", "install it with `make demo` or pip")
    wrong = [said for line in stated if (said := _unmet(line))]
    if wrong:
        return problem("packages", "; ".join(wrong), "install them with `pip install -e .`")
    return ok("packages", ", ".join(f"{name} {_version(name)}" for name in SHOWN))


def _unmet(line: str) -> str:
    found = _NEED.match(line)
    if found is None:
        return ""
    name, bounds, _ = found.groups()
    have = _version(name)
    if not have:
        return f"{name} is missing"
    if not all(_holds(have, sign, bound) for sign, bound in _BOUND.findall(bounds)):
        return f"{name} is {have}, but {bounds.rstrip(',')} is needed"
    return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _holds(have: str, sign: str, bound: str) -> bool:
    one, two = _numbers(have), _numbers(bound)
    length = max(len(one), len(two))
    one += (0,) * (length - len(one))
    two += (0,) * (length - len(two))
    match sign:
        case ">=":
            return one >= two
        case "<=":
            return one <= two
        case "<":
            return one < two
        case ">":
            return one > two
        case _:
            return one == two


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()


def torch_finding(place: Path | None = None) -> Finding:
    """torch's version and what it was built for."""
    place = place or torch_build.folder()
    if place is None:
        return problem("torch", "is not installed", "install it with `pip install torch`")
    version, cuda = torch_build.version(place), torch_build.cuda(place)
    built = f"built for CUDA {cuda}" if cuda else "built for CPUs only"
    return ok("torch", f"{version or 'of unknown version'}, {built}")
