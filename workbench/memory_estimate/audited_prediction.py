"""The audit's figure for the memory of a prediction beside ours, and what lies between them."""

from __future__ import annotations

from typing import Final

from engines.memory_query import MemoryEstimate
from engines.protocol import RunSpec
from results.text.table import Table, TableCell, TableColumn
from workbench.memory_estimate import fit_check, policy
from workbench.memory_estimate.gpus import GpuModel
from workbench.memory_estimate.policy import GB

AUDITED_SETTINGS: Final = {"eval_batch_size": 6, "max_new_tokens": 16, "quantize": "nf4"}
UNCACHED: Final = {"feature_cache": False}
"""Settings of a program that encodes the images in every batch, for a second estimate."""


def is_audited(spec: RunSpec, estimate: MemoryEstimate, gpu: GpuModel) -> bool:
    """Whether settings, model and GPU are those of which the audit has a figure."""
    same = all(spec.params.get(key) == value for key, value in AUDITED_SETTINGS.items())
    return (
        same
        and spec.engine == "vqa"
        and spec.model in policy.AUDITED_MODELS
        and policy.select_preset(gpu.memory_bytes).gigabytes == 22
        and "predict" in estimate.phases
    )


def describe(estimate: MemoryEstimate, gpu: GpuModel) -> str:
    """The audit's estimate and ours in a sentence."""
    ours = fit_check.check_fit(estimate, "predict", gpu).total / GB
    low, high = policy.AUDIT_PREDICTION_GB
    return (
        f"the audit's own estimate: {low} to {high} GB in prediction (24 GB, 6 at once, 16 new "
        f"tokens); ours: {ours:.1f} GB. Neither has been measured on an A10G yet"
    )


def gap_table(estimate: MemoryEstimate, uncached: MemoryEstimate, gpu: GpuModel) -> Table:
    """What is added from the weights alone to the audit's figure, each part by its name.

    `uncached`: the estimate with the settings `UNCACHED`.
    """
    tensors = estimate.phases["predict"]
    weights = {name: size for name, size in tensors.items() if name in estimate.weights}
    others = [name for name in tensors if name not in weights]
    total = fit_check.check_fit(estimate, "predict", gpu).total
    steps = [
        (f"weights alone: {'; '.join(weights)}", sum(weights.values())),
        (f"with the batch: {'; '.join(others)}", sum(tensors.values())),
        ("with CUDA context, cuBLAS workspace and allocator slack: this program", total),
    ]
    if "predict" in uncached.phases:
        total = fit_check.check_fit(uncached, "predict", gpu).total
        steps.append(("if features are not cached: vision tower and images in every batch", total))
    for name, size in estimate.avoided.items():
        total += size
        steps.append((f"if it computed {name}, in 16 bit and as float32", total))
    low, high = policy.AUDIT_PREDICTION_GB
    rows = [(TableCell(title), TableCell(f"{size / GB:.1f} GB", "value")) for title, size in steps]
    rows.append((TableCell("the audit's own estimate"), TableCell(f"{low} – {high} GB", "value")))
    remark = "Each row holds those above it. What the audit's figure is made of is not stated."
    columns = (
        TableColumn("prediction, from our figure to the audit's"),
        TableColumn("", right=True),
    )
    return Table(columns, tuple(rows), (TableCell(remark),))
