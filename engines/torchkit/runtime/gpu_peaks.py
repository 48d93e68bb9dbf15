"""Peak FLOP/s of GPUs by name and dtype, of dense products (`gpu_peaks.toml`)."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

TABLE: Final = Path(__file__).parent / "gpu_peaks.toml"
DTYPES: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
"""torch's dtypes -> keys of the table."""
NO_GPU: Final = "a CPU has no peak in the table"
SLICE: Final = "a MIG slice has no peak of its own"


class Peak(NamedTuple):
    """Peak of a card at one dtype, or the reason why there is none."""

    flops: float = 0.0
    """FLOP/s."""
    card: str = ""
    revision: str = ""
    reason: str = ""

    def describe(self, dtype: str) -> str:
        """`dense bf16 peak 312 TFLOP/s of NVIDIA A100-SXM4-80GB, table of 2026-11`."""
        tera = f"{self.flops / 1e12:g} TFLOP/s"
        return f"dense {dtype} peak {tera} of {self.card}, table of {self.revision}"


def read_card_name(device: torch.device) -> str:
    """The name of a GPU as torch has it; empty: the device is none."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def find_peak(card: str, dtype: str) -> Peak:
    """The peak of the card of this name; `dtype`: bf16, fp16, tf32 or fp32."""
    if not card:
        return Peak(reason=NO_GPU)
    if " MIG " in card:
        return Peak(reason=SLICE)
    table = _read_table()
    row = next((row for row in table["cards"] if card in row["names"]), None)
    if row is None:
        return Peak(reason=f"{card} is not in the table of peaks")
    if dtype not in row:
        return Peak(reason=f"the table has no {dtype} peak of {card}")
    return Peak(row[dtype] * 1e12, card, table["revision"])


@cache
def _read_table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text("utf-8"))
