"""A catalog of machines, as facts only: what NVML, CUDA and the kernel say on each of them.

`fakes.py` makes the product see one of them. Memory in MiB: `nvml_mib` as nvidia-smi prints it,
`torch_mib` as torch's `total_memory`, which is less. Sources: nvidia-smi listings and out-of-memory
messages that people posted (workbench/memory_estimate/gpus.toml names some); NVIDIA's CUDA C++
programming guide for capabilities and CUDA_DEVICE_ORDER. `GPU-…` identifiers and bus ids are
invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

MIB: Final = 1 << 20

Processes = Literal["named", "hidden", "unsized"]
"""What NVML tells of the processes on a GPU: pids of this namespace with bytes; none (a container
without --pid=host); pids without bytes (NVIDIA's open kernel module in a container)."""


@dataclass(frozen=True)
class Slice:
    """A MIG device: what a process gets of a GPU that is cut up."""

    profile: str
    uuid: str
    mib: int
    """NVML and torch agree on it."""


@dataclass(frozen=True)
class Gpu:
    """One card."""

    name: str
    capability: tuple[int, int]
    nvml_mib: int
    torch_mib: int
    uuid: str = ""
    bus: str = ""
    slices: tuple[Slice, ...] = ()
    """MIG devices; empty: MIG is off or the card has none."""
    speed: int = 0
    """Rank under CUDA_DEVICE_ORDER=FASTEST_FIRST, CUDA's default: larger comes first."""

    @property
    def has_mig(self) -> bool:
        """Whether NVML answers nvmlDeviceGetMigMode; elsewhere it says "Not Supported"."""
        return self.name.startswith(("NVIDIA A100", "NVIDIA H100", "NVIDIA H200"))


@dataclass(frozen=True)
class Cpu:
    """The processor of a machine, or of the virtual machine that one sees."""

    name: str
    cores: int
    flags: tuple[str, ...]
    bf16: bool = False
    """What `torch.ops.mkldnn._is_mkldnn_bf16_supported()` says: also where oneDNN converts."""


@dataclass(frozen=True)
class Torch:
    """A build of torch: its CUDA version and the architectures it has kernels for."""

    version: str
    cuda: str
    architectures: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """Everything that decides how the product behaves on a machine."""

    key: str
    title: str
    cpu: Cpu
    gpus: tuple[Gpu, ...] = ()
    """In the order of NVML, which is that of PCI bus ids."""
    driver: str = ""
    library: str = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    environment: Mapping[str, str] = field(default_factory=dict)
    driver_seconds: float = 0.1
    """Until NVML has named the GPUs; without persistence mode the driver initializes each."""
    processes: Processes = "named"
    initial_pid_namespace: bool = True
    """Whether our pids are those that the driver counts."""
    shm_mib: int = 32_768
    """/dev/shm; a container has 64 unless somebody asked for more."""
    torch: Torch = field(default_factory=lambda: CU132)
    note: str = ""

    @property
    def driver_cuda(self) -> int:
        """CUDA major version of the loaded libcuda (CUDA toolkit release notes)."""
        if "compat" in self.environment.get("LD_LIBRARY_PATH", ""):
            return 13
        major = int(self.driver.split(".")[0] or 0)
        return 13 if major >= 580 else 12 if major >= 525 else 11


CU126: Final = Torch("2.14.0+cu126", "12.6", ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86",
                                             "sm_90"))  # fmt: skip
"""The last build for CUDA 12.6 (pytorch/pytorch#190385)."""
CU132: Final = Torch("2.15.0+cu132", "13.2", ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100",
                                             "sm_120"))  # fmt: skip
"""The build that requirements.lock pins."""

_AVX2: Final = ("avx", "avx2", "fma", "f16c")
_AVX512: Final = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
EPYC: Final = Cpu("AMD EPYC 7B13", 2, _AVX2)
LAPTOP: Final = Cpu("12th Gen Intel(R) Core(TM) i7-1260P", 12, (*_AVX2, "avx_vnni"))
XEON: Final = Cpu("Intel(R) Xeon(R) CPU @ 2.20GHz", 2, _AVX2)
SKYLAKE: Final = Cpu("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", 40, _AVX512, bf16=True)
SAPPHIRE: Final = Cpu("Intel(R) Xeon(R) Platinum 8480+", 32,
                      (*_AVX512, "avx512_bf16", "amx_bf16", "amx_tile"), bf16=True)  # fmt: skip
GENOA: Final = Cpu("AMD EPYC 9454", 48, (*_AVX512, "avx512_bf16"), bf16=True)

T4: Final = Gpu("Tesla T4", (7, 5), 15_360, 14_910, speed=20)
P100: Final = Gpu("Tesla P100-PCIE-16GB", (6, 0), 16_384, 16_281, speed=15)
V100: Final = Gpu("Tesla V100-SXM2-16GB", (7, 0), 16_384, 16_128, speed=30)
RTX_2080_TI: Final = Gpu("NVIDIA GeForce RTX 2080 Ti", (7, 5), 11_264, 11_018, speed=25)
RTX_3090: Final = Gpu("NVIDIA GeForce RTX 3090", (8, 6), 24_576, 24_268, speed=40)
RTX_4090: Final = Gpu("NVIDIA GeForce RTX 4090", (8, 9), 24_564, 24_207, speed=80)
A6000: Final = Gpu("NVIDIA RTX A6000", (8, 6), 49_140, 48_570, speed=45)
A10G: Final = Gpu("NVIDIA A10G", (8, 6), 23_028, 22_732, speed=35)
A100_40: Final = Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 40_960, 40_448, speed=60)
A100_80: Final = Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 81_920, 81_039, speed=60)
H100: Final = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 81_559, 80_998, speed=90)
H200: Final = Gpu("NVIDIA H200", (9, 0), 143_771, 142_745, speed=95)


def _in_slots(*cards: Gpu) -> tuple[Gpu, ...]:
    """The cards with a UUID and a PCI bus id each, in the order of their slots."""
    return tuple(
        replace(card, uuid=f"GPU-{slot:08x}-1234-5678-9abc-def012345678",
                bus=f"00000000:{16 * slot + 4:02X}:00.0")
        for slot, card in enumerate(cards)
    )  # fmt: skip


def _cut(card: Gpu) -> Gpu:
    """An H100 cut into one slice of 40 GB and two of 10."""
    profiles = (("3g.40gb", 40_448), ("1g.10gb", 9_984), ("1g.10gb", 9_984))
    slices = tuple(
        Slice(profile, f"MIG-{number:08x}-aaaa-5bbb-8ccc-dddddddddddd", mib)
        for number, (profile, mib) in enumerate(profiles)
    )
    return replace(card, slices=slices)


_CONTAINER: Final[dict[str, object]] = {"initial_pid_namespace": False, "processes": "hidden"}
_SLICES: Final = _cut(_in_slots(H100)[0])
_MIXED: Final = _in_slots(T4, RTX_2080_TI, RTX_3090, RTX_3090, A6000, RTX_4090, A100_40, T4)

CATALOG: Final = (
    Machine("cpu-avx2", "Server or cloud CPU with AVX2 only", EPYC),
    Machine("cpu-laptop", "Laptop without GPU", LAPTOP),
    Machine("cpu-avx512", "CPU with AVX512 but no bf16 instructions", SKYLAKE),
    Machine("cpu-amx", "CPU with AMX (native bf16)", SAPPHIRE),
    Machine("cpu-avx512-bf16", "CPU with AVX512-BF16 (native bf16)", GENOA),
    Machine("t4", "T4", SKYLAKE, _in_slots(T4), "580.95.05"),
    Machine("p100", "P100", SKYLAKE, _in_slots(P100), "580.95.05",
            note="580 is the last driver branch that supports Pascal and Volta"),
    Machine("p100-cu126", "P100 with torch for CUDA 12.6", SKYLAKE, _in_slots(P100), "580.95.05",
            torch=CU126),
    Machine("v100", "V100", SKYLAKE, _in_slots(V100), "580.95.05"),
    Machine("v100-cu126", "V100 with torch for CUDA 12.6", SKYLAKE, _in_slots(V100), "570.86.15",
            torch=CU126),
    Machine("2080ti", "RTX 2080 Ti", LAPTOP, _in_slots(RTX_2080_TI), "590.44.01"),
    Machine("4090", "RTX 4090", LAPTOP, _in_slots(RTX_4090), "590.44.01"),
    Machine("a10g", "A10G (AWS g5)", EPYC, _in_slots(A10G), "580.95.05"),
    Machine("a100-40", "A100 40 GB", GENOA, _in_slots(A100_40), "580.95.05"),
    Machine("a100-80", "A100 80 GB", GENOA, _in_slots(A100_80), "580.95.05"),
    Machine("h100", "H100", SAPPHIRE, _in_slots(H100), "580.95.05"),
    Machine("h100-mig", "H100 with MIG, nothing chosen", SAPPHIRE, (_SLICES,), "580.95.05"),
    Machine("h100-mig-slice", "H100 with MIG, a slice of 10 GB chosen", SAPPHIRE, (_SLICES,),
            "580.95.05", environment={"CUDA_VISIBLE_DEVICES": _SLICES.slices[1].uuid}),
    Machine("h200", "H200", SAPPHIRE, _in_slots(H200), "580.95.05"),
    Machine("mixed", "8 mixed cards", GENOA, _MIXED, "580.95.05", driver_seconds=4.0,
            note="CUDA counts FASTEST_FIRST, NVML by PCI bus id"),
    Machine("mixed-chosen", "8 mixed cards, CUDA_VISIBLE_DEVICES=1", GENOA, _MIXED, "580.95.05",
            driver_seconds=4.0, environment={"CUDA_VISIBLE_DEVICES": "1"},
            note="number 1 of CUDA's own order is the A100, of NVML's the 2080 Ti"),
    Machine("colab", "Colab (T4)", XEON, _in_slots(T4), "580.82.07",
            "/usr/lib64-nvidia/libnvidia-ml.so.1", {"LD_LIBRARY_PATH": "/usr/lib64-nvidia"},
            shm_mib=5_952, **_CONTAINER),
    Machine("kaggle", "Kaggle (two T4)", XEON, _in_slots(T4, T4), "580.105.08",
            "/usr/local/nvidia/lib64/libnvidia-ml.so.1", shm_mib=14_300, **_CONTAINER),
    Machine("apptainer", "Apptainer --nv (A100)", GENOA, _in_slots(A100_80), "580.95.05",
            "/.singularity.d/libs/libnvidia-ml.so.1",
            {"LD_LIBRARY_PATH": "/.singularity.d/libs", "CUDA_VISIBLE_DEVICES": "0"},
            note="shares the host's pids"),
    Machine("old-driver", "T4 with a driver too old for CUDA 13", SKYLAKE, _in_slots(T4),
            "535.183.01"),
    Machine("old-driver-cu126", "T4 with an old driver and torch for CUDA 12.6", SKYLAKE,
            _in_slots(T4), "535.183.01", torch=CU126),
    Machine("old-driver-compat", "T4 with an old driver and a newer libcuda (compat)", SKYLAKE,
            _in_slots(T4), "535.183.01",
            environment={"LD_LIBRARY_PATH": "/usr/local/cuda-13.0/compat"}),
    Machine("slow-driver", "8 A100 without persistence mode", GENOA, _in_slots(*[A100_80] * 8),
            "580.95.05", driver_seconds=7.0),
    Machine("container", "RTX 4090 in a container without --pid=host", LAPTOP,
            _in_slots(RTX_4090, RTX_4090), "590.44.01", shm_mib=64, **_CONTAINER),
    Machine("open-module", "H100 in a container, NVIDIA's open kernel module", SAPPHIRE,
            _in_slots(H100), "580.95.05", initial_pid_namespace=False, processes="unsized"),
)  # fmt: skip

MACHINES: Final = {machine.key: machine for machine in CATALOG}
