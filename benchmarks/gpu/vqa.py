"""A VQA step with and without the cache of the frozen vision tower's features."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu.report import Report, Skip

TOWER = {
    "vision_width": 1280, "vision_inner": 3456, "vision_depth": 32, "vision_heads": 16,
    "width": 2048, "inner": 5504, "layers": 4, "heads": 16, "key_value_heads": 2,
    "long_side": 756,
}  # fmt: skip
"""The vision tower of Qwen2.5-VL-3B, and 4 of its 36 language layers."""
STEPS = 12


def step(report: Report) -> None:
    """Through the engine: seconds of a step, and the loss, which must not differ."""
    from engines.vqa import Params
    from tests.engines import engine_runs, tiny_vqa

    if find_spec("peft") is None:
        raise Skip("peft is not installed")
    if "feature_cache" not in Params.model_fields:
        raise Skip("the engine has no cache of vision features")
    folder = report.scratch / "vqa"
    small = dict(tiny_vqa.SIZES)
    tiny_vqa.SIZES |= {} if report.small else TOWER
    folder.mkdir()
    tiny_vqa.write(folder)
    tiny_vqa.SIZES |= small
    settings = {"quantize": "none", "precision": "auto", "batch": 2, "epochs": 4, "lr": 1e-4,
                "max_steps": report.size(STEPS, 4), "timing_warmup_steps": report.size(4, 1),
                "long_side": report.size(756, 56), "gradient_checkpointing": False}  # fmt: skip
    losses: dict[bool, list[float]] = {}
    with engine_runs.configured(folder):
        for cached in (False, True):
            spec = tiny_vqa.spec(folder, settings=settings | {"feature_cache": cached})
            sent: list[Any] = tiny_vqa.go(spec, folder / f"cached-{cached}")
            name = "with the cache" if cached else "without it"
            if cached and (reason := find_missing_cache(sent)):
                report.figure(f"{name}: step median, ms", "n/a", reason)
                return
            timing = next(m for m in sent if m.kind == "timing")
            losses[cached] = [m.loss for m in sent if m.kind == "step"]
            report.figure(f"{name}: step median, ms", timing.step_median * 1e3)
            report.figure(f"{name}: last loss", losses[cached][-1])
    gap = abs(losses[True][-1] - losses[False][-1])
    report.check("the losses agree", gap < 0.02, f"{gap:.2e} apart")


def find_missing_cache(sent: Iterable[Any]) -> str:
    """Why a run that may keep features kept none, as its plan says; empty: it kept them.

    transformers 5.17 takes no features in the place of pixels, 5.23 does.
    """
    fact = next(m for m in sent if m.kind == "plan").facts["feature_cache"]
    return str(fact) if fact.startswith("none") else ""
