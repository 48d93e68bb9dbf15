"""Identification of the NVML library and binding: the driver's or a stub, official or not."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

LIBRARY: Final = "libnvidia-ml.so"

STUB_SYMBOLS: Final = ("nvml_stub_marker", "nvmlStub")
"""Symbols that a stub exports on purpose."""

STUB_VARIABLES: Final = ("NVML_STUB_", "MOCK_NVML_")
"""Prefixes of variables that configure a stub: this project's and NVIDIA/k8s-test-infra's."""

KERNEL_NODES: Final = ("nvidiactl", "nvidia[0-9]*", "dxg", "nvhost-*", "nvmap", "nvgpu")
"""Where a driver's library reaches its kernel module, in /dev: Linux, WSL, Tegra. Containers that
have a GPU have them too."""


def find_package_problem(module_file: str) -> str:
    """Why a module named pynvml is not the one of nvidia-ml-py; empty if it is."""
    remedy = "uninstall `pynvml` and install `nvidia-ml-py`"
    try:
        official = importlib.metadata.distribution("nvidia-ml-py").locate_file("pynvml.py")
    except importlib.metadata.PackageNotFoundError:
        return f"a package other than nvidia-ml-py provides pynvml; {remedy}"
    if Path(module_file).resolve() != Path(str(official)).resolve():
        return f"{module_file} hides the pynvml of nvidia-ml-py; {remedy}"
    return ""


def library_path(maps: Path = Path("/proc/self/maps")) -> str:
    """The library file that is mapped into this process; empty if there is none."""
    try:
        for line in maps.read_text().splitlines():
            if LIBRARY in line.rpartition("/")[2]:
                return line[line.index("/") :]
    except OSError:
        pass
    return ""


def is_stub(
    driver: str,
    library: str,
    variables: Mapping[str, str],
    exports: Callable[[str], bool],
) -> bool:
    """Whether the library is a stub, by a sign that only stubs have.

    `exports`: whether the library has a symbol.

    Not by the folder: containers and notebooks put the driver's own library anywhere (Colab
    /usr/lib64-nvidia, Apptainer /.singularity.d/libs, WSL /usr/lib/wsl/lib, NixOS /nix/store,
    Kubernetes /usr/local/nvidia/lib64).
    """
    return (
        "stub" in driver.lower()
        or "stubs" in Path(library).parts  # the CUDA toolkit's library to link against
        or any(name.startswith(STUB_VARIABLES) for name in variables)
        or any(map(exports, STUB_SYMBOLS))
        or not has_kernel_node()
    )


def has_kernel_node(nodes: Path = Path("/dev")) -> bool:
    """Whether there is a device file by which a driver's library can reach a GPU at all."""
    return any(next(nodes.glob(pattern), None) for pattern in KERNEL_NODES)
