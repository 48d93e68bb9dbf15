"""docs/hardware.md, written from the decisions on every machine of the catalog.

python -m tests.hardware.table          writes the file; test_table.py fails where it differs
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pytest

from engines import cuda_support
from tests.hardware.decisions import NONE, REFUSED, Decisions, decide
from tests.hardware.machines import CATALOG, Machine

FILE: Final = Path(__file__).parents[2] / "docs" / "hardware.md"
COMMAND: Final = "python -m tests.hardware.table"

HEAD: Final = """\
# Hardware: what runs where

Made by `{command}` from the product's own decisions on machines that are
described in `tests/hardware/machines.py` as facts: NVML, CUDA and torch are fakes that say what
they say there. A test fails where this file differs. Nothing here was timed; measured figures
are in [RESULTS.md](../benchmarks/RESULTS.md).

`workbench doctor` says the same of the machine in front of you. In short:

- **NVIDIA GPUs from capability {oldest} on** (T4, RTX 20 and later) run with the pinned torch and a
  driver of branch {branch} or later. Older cards and drivers run with an older torch, which the
  refusal names.
- **`precision = auto`**, the default of every engine, is bf16 on a GPU that has it in hardware
  (capability {bf16} and later), fp16 with gradient scaling on older ones, bf16 on a CPU that has it
  in hardware (AMX, AVX512-BF16, AVX-NE-CONVERT) and fp32 on every other CPU. Products with 4-bit
  weights follow the same rule.
- **A GPU that is here and cannot be used ends the run**, with torch's own words and a remedy;
  `--cpu` computes on the CPU all the same.

## Device and precision
Of a plain run, nothing chosen. *bf16*: what an explicit `precision = "bf16"` does (the preset
`weekly-m2kr` has it, as the weekly report does); where it is refused, `--set precision=auto` takes
fp16. A CPU that lacks it computes it all the same, and says how many times slower a product is than
in fp32, measured at the start of the run. *Loader*: threads that prepare batches, by cores.
*VQA batch*: micro-batch and predictions at once of a VQA plan that names none.
"""

REFUSALS: Final = """
## What is refused, and why
Before anything starts (exit code 2; `--force` starts it all the same), and by the engine itself,
which asks torch:
"""

MEMORY: Final = """
## Memory estimate, lock, figures
*GPU memory*: what a run's memory estimate is compared with before it starts; a MIG slice has its
own, not the card's ([memory estimate](fit.md)). *Lock*: what a second suite waits for. *GPU
figures*: NVML's readings of the run's GPU. *Memory of the run*: of its own processes; torch's own
peaks are always there.
"""

DOCTOR: Final = """
## What doctor says
Notes and problems, where nobody else computes on the GPUs:
"""

BUILDS: Final = """
## Builds of torch
| CUDA of the build | capability | driver from | install |
|---|---|---|---|
"""


def document() -> str:
    """The whole file."""
    made: list[tuple[Machine, Decisions]] = []
    for machine in CATALOG:
        with pytest.MonkeyPatch.context() as patch:
            made.append((machine, decide(patch, machine)))
    newest = cuda_support.BUILDS[0]
    head = HEAD.format(
        command=COMMAND, oldest=cuda_support.format_capability(newest.oldest),
        branch=cuda_support.DRIVERS[newest.cuda[0]],
        bf16=cuda_support.format_capability(cuda_support.BF16),
    )  # fmt: skip
    titles = ("machine", "driver", "torch for CUDA", "computes on", "auto", "4-bit products",
              "bf16", "loader", "VQA batch")  # fmt: skip
    parts = [head, *_table(titles, (_device_row(*one) for one in made))]
    parts += [REFUSALS, *_refusals(made), MEMORY]
    parts += _table(
        ("machine", "GPU memory", "lock", "GPU figures", "memory of the run"),
        (_memory_row(*one) for one in made if one[0].gpus),
    )
    parts += [DOCTOR, *_findings(made), BUILDS.rstrip("\n"), *map(_build_row, cuda_support.BUILDS)]
    return "\n".join(parts) + "\n"


def _device_row(machine: Machine, made: Decisions) -> Sequence[str]:
    device = f"**{REFUSED}**" if made.device == REFUSED else made.device
    build = machine.torch.cuda if machine.gpus else NONE
    batches = made.batches if machine.gpus else NONE
    return (_title(machine), machine.driver or NONE, build, device, made.precision,
            made.products, made.explicit_bf16, made.loading, batches)  # fmt: skip


def _memory_row(machine: Machine, made: Decisions) -> Sequence[str]:
    return (_title(machine), made.forecast, made.lock, made.figures, made.process_memory)


def _refusals(made: Iterable[tuple[Machine, Decisions]]) -> list[str]:
    rows: list[str] = []
    for machine, decisions in made:
        if decisions.refusal:
            before = "; ".join(decisions.before) or "starts"
            rows.append(f"- **{machine.title}**\n  - before: {before}\n"
                        f"  - engine: {decisions.refusal}")  # fmt: skip
    return rows


def _findings(made: Iterable[tuple[Machine, Decisions]]) -> list[str]:
    return [
        f"- **{machine.title}**: {finding}"
        for machine, decisions in made
        for finding in decisions.doctor
    ]


def _build_row(build: cuda_support.TorchBuild) -> str:
    version, branch = ".".join(map(str, build.cuda)), cuda_support.DRIVERS[build.cuda[0]]
    later = " and later" if build is cuda_support.BUILDS[0] else ""
    oldest, newest = map(cuda_support.format_capability, (build.oldest, build.newest))
    span = f"{oldest} to {newest}"
    return f"| {version}{later} | {span} | {branch} | `{build.install}` |"


def _title(machine: Machine) -> str:
    return f"{machine.title}. {machine.note[0].upper()}{machine.note[1:]}" if machine.note else (
        machine.title
    )  # fmt: skip


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
