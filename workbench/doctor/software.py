"""Versions of Python, required packages and torch's build, from metadata without imports."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workbench.doctor.finding import Finding, note, ok, problem
from workbench.memory_estimate import torch_build

DISTRIBUTION: Final = "workbench-mm"
SHOWN_PACKAGES: Final = ("torch", "transformers", "pydantic", "textual", "pillow", "nvidia-ml-py")
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)((?:[<>=!~]=?[^;,\s]+,?)*)\s*(?:;(.*))?\Z")
_BOUND: Final = re.compile(r"(>=|<=|==|<|>)([0-9.]+)")


def software_findings() -> Iterator[Finding]:
    """All findings about installed software."""
    yield ok("python", f"{platform.python_version()} in {sys.prefix}")
    yield packages_finding(read_requirements())
    yield torch_finding()


def read_requirements() -> list[str]:
    """Our requirements without extras; empty: the package is not installed."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line for line in requirements if "extra ==" not in line]


def packages_finding(requirements: list[str]) -> Finding:
    """Whether every requirement is installed in a matching version."""
    if not requirements:
        return note(
            "packages", f"{DISTRIBUTION} is not installed", "install it with `make demo` or pip"
        )
    complaints = {line: text for line in requirements if (text := _requirement_problem(line))}
    if complaints:
        remedy = f"run `pip install {shlex.join(complaints)}` in its environment"
        return problem("packages", "; ".join(complaints.values()), remedy)
    return ok(
        "packages", ", ".join(f"{name} {_installed_version(name)}" for name in SHOWN_PACKAGES)
    )


def _requirement_problem(line: str) -> str:
    match = _REQUIREMENT.match(line)
    if match is None:
        return ""
    name, bounds, _ = match.groups()
    version = _installed_version(name)
    if not version:
        return f"{name} is missing"
    if not all(_satisfies(version, sign, bound) for sign, bound in _BOUND.findall(bounds)):
        return f"{name} is {version}, but {bounds.rstrip(',')} is needed"
    return ""


def _installed_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _satisfies(version: str, sign: str, bound: str) -> bool:
    actual, required = _version_numbers(version), _version_numbers(bound)
    length = max(len(actual), len(required))
    actual += (0,) * (length - len(actual))
    required += (0,) * (length - len(required))
    match sign:
        case ">=":
            return actual >= required
        case "<=":
            return actual <= required
        case "<":
            return actual < required
        case ">":
            return actual > required
        case _:
            return actual == required


def _version_numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()


def torch_finding(folder: Path | None = None) -> Finding:
    """torch's version and the CUDA version of its build."""
    folder = folder or torch_build.torch_folder()
    if folder is None:
        return problem("torch", "is not installed", "install it with `pip install torch`")
    version, cuda = torch_build.torch_version(folder), torch_build.cuda_version(folder)
    built = f"built for CUDA {cuda}" if cuda else "built for CPUs only"
    return ok("torch", f"{version or 'of unknown version'}, {built}")
