"""Which file answers as NVML: the driver's library or a stand-in, the right binding or another."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

LIBRARY: Final = "libnvidia-ml.so"

STUB_SYMBOLS: Final = ("nvml_stub_marker", "nvmlStub")
"""A stand-in exports one of these on purpose."""

STUB_VARIABLES: Final = ("NVML_STUB_", "MOCK_NVML_")
"""Beginnings of variables that steer a stand-in: ours, and that of NVIDIA/k8s-test-infra."""

KERNEL_NODES: Final = ("nvidiactl", "nvidia[0-9]*", "dxg", "nvhost-*", "nvmap", "nvgpu")
"""Where a driver's library reaches its kernel module, in /dev: Linux, WSL, Tegra. Containers that
have a GPU have them too."""


def impostor(module_file: str) -> str:
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
    """The file that the loader really took, whatever any search path says."""
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
    """Whether a stand-in answers, by a sign that only a stand-in has.

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
