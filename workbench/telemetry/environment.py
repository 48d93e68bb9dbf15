"""Environment of a run: machine, GPUs, driver, versions and git state of the source. No torch.

The engine adds its own versions in its first message. Nothing here is secret: no environment
variables, no command lines, no remote addresses.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from results.records.schema import Environment, GpuInfo
from workbench.processes import host_memory
from workbench.slurm import commands

GIT_SECONDS: Final = 5.0
"""Timeout of a git command."""

NOTEBOOK_SERVICES: Final = {
    "COLAB_RELEASE_TAG": "Google Colab",
    "KAGGLE_KERNEL_RUN_TYPE": "Kaggle",
}
"""Variables that services set in their notebooks."""

SOURCE: Final = Path(__file__).resolve().parents[2]


def collect_environment(
    gpus: tuple[GpuInfo, ...], gpu_facts: dict[str, object], gpu_reason: str
) -> Environment:
    """Environment of a suite, from the sampler's GPU facts and this machine."""
    commit, dirty = read_git_state(SOURCE)
    return Environment(
        versions={
            "workbench": package_version("workbench-mm"),
            "pydantic": package_version("pydantic"),
        },
        python=platform.python_version(),
        platform=", ".join(filter(None, (read_instance(os.environ), platform.platform()))),
        cpu=read_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        ram_bytes=host_memory.read_memory().total,
        gpus=gpus,
        gpu_reason="" if gpus else (gpu_reason or "NVML named none"),
        driver=str(gpu_facts.get("driver", "")),
        nvml_library=str(gpu_facts.get("library", "")),
        nvml_stub=bool(gpu_facts.get("stub", False)),
        git_commit=commit,
        git_dirty=dirty,
        hostname=platform.node(),
        job=commands.job_name(os.environ),
        nodes=commands.read_run_nodes(os.environ),
    )


def read_instance(variables: Mapping[str, str], dmi: Path = Path("/sys/class/dmi/id")) -> str:
    """Kind of a rented machine: `Amazon EC2 g5.xlarge`, `Google Colab`; empty: not known.

    Args:
        variables: The environment's, of which notebook services have their own.
        dmi: Where the firmware names maker and product; EC2's product is the kind of instance.
    """
    for name, service in NOTEBOOK_SERVICES.items():
        if variables.get(name):
            return service
    try:
        maker, product = (
            (dmi / n).read_text("utf-8").strip() for n in ("sys_vendor", "product_name")
        )
    except (OSError, UnicodeDecodeError):
        return ""
    if maker == "Amazon EC2":
        return f"{maker} {product}"
    return product if product == "Google Compute Engine" else ""


def package_version(package: str) -> str:
    """An installed package's version, or `source` for a checkout that is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source"


def read_cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the processor, else its architecture."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Hardware", "cpu model"):
                    return value.strip()
    except OSError:
        pass
    return platform.machine()


def read_git_state(folder: Path) -> tuple[str, bool | None]:
    """(commit, whether tracked files differ from it); ("", None) if there is no checkout."""
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return "", None
    # The repository's own settings shall not start programs.
    base = [git, "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
    commit = _run([*base, "rev-parse", "HEAD"])
    if not commit:
        return "", None
    changes = _run([*base, "status", "--porcelain", "--untracked-files=no"])
    return commit, None if changes is None else bool(changes)


def _run(command: list[str]) -> str | None:
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS,
            check=True, stdin=subprocess.DEVNULL, env={**keep, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
