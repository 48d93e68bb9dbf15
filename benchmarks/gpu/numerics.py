"""Number formats on a GPU: TF32 in search, RMSNorm's kernel, skipped fp16 steps, 4-bit layers that
resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks import weekly
from benchmarks.gpu.report import Report, Skip
from benchmarks.gpu.retrieval import bench, changes
from engines.emitter import Stopped
from engines.retrieval.index import exact
from engines.torchkit.modeling import rms_norm
from engines.torchkit.runtime import device

DEEPEST = 100
FP32_ERROR = 1e-5
"""Largest error of a cosine of 512 products in float32; TF32's is 1e-4 and more."""
HALF_STEPS = 50


def search(report: Report) -> None:
    """`exact.top_k` with and without TF32 in the settings, beside float64."""
    queries, passages = report.size(5_000, 50), report.size(100_000, 20_000)
    width = report.size(512, 64)
    target = torch.device("cuda" if report.cuda else "cpu")
    generator = torch.Generator(target).manual_seed(0)

    def vectors(count: int) -> Tensor:
        drawn = torch.randn(count, width, generator=generator, device=target)
        return torch.nn.functional.normalize(drawn, dim=1)

    query_vectors, corpus = vectors(queries), vectors(passages)
    scores, rows = reference(query_vectors, corpus)
    for tf32 in (False, True):
        device.configure_torch(0, tf32=tf32)
        top_scores, order = exact.top_k(query_vectors, corpus, DEEPEST)
        error = float((top_scores.double() - scores).abs().max())
        first = float((order[:, 0] != rows[:, 0]).double().mean())
        name = "tf32 = true" if tf32 else "tf32 = false"
        report.figure(f"{name}: largest error of a score", error)
        report.figure(f"{name}: queries with another first passage", first)
        report.check(f"{name}: search is float32", error < FP32_ERROR, f"{error:.2e}")
    device.configure_torch(0, tf32=False)


def reference(query_vectors: Tensor, corpus: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and rows by float64, 500 queries at a time: 0.4 GB of scores."""
    parts = [
        (part.double() @ corpus.double().T).topk(DEEPEST, dim=1)
        for part in torch.split(query_vectors, 500)
    ]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def norms(report: Report) -> None:
    """RMSNorm of Qwen3-8B's width in bf16: the kernel and the model's own code, beside float64."""
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    target = torch.device("cuda" if report.cuda else "cpu")
    rows, width = report.size(8_192, 64), report.size(4_096, 256)
    norm = Qwen3RMSNorm(width, eps=1e-6).to(target)
    torch.manual_seed(0)
    norm.weight.data.uniform_(0.5, 2)
    norm = norm.bfloat16().requires_grad_(False)
    x, grad = (torch.randn(rows, width, device=target).bfloat16() for _ in range(2))
    exact_tensors = outputs(lambda x: torch.rms_norm(x, (width,), norm.weight.double(), 1e-6),
                            x.double(), grad.double())  # fmt: skip
    errors: dict[str, list[float]] = {}
    for name in ("own code", "kernel"):
        if name == "kernel":
            rms_norm.use_fused_rms_norm(torch.nn.Sequential(norm))
        pairs = zip(outputs(norm, x, grad), exact_tensors, strict=True)
        errors[name] = [float((t - e).norm() / e.norm()) for t, e in pairs]
        for quantity, error in zip(("output", "gradient"), errors[name], strict=True):
            report.figure(f"{name}: relative error of the {quantity}", error)
    closer = all(kernel <= 1.01 * plain for plain, kernel in zip(*errors.values(), strict=True))
    report.check("the kernel is as near to float64 as the model's own code", closer)


def outputs(norm: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Output of a norm under autocast, and the gradient of its input."""
    x = x.clone().requires_grad_()
    with torch.autocast(x.device.type, torch.bfloat16):
        output = norm(x)
    output.backward(grad)
    assert x.grad is not None
    return output.detach(), x.grad


def half_precision(report: Report) -> None:
    """fp16 with gradient scaling: how many steps are skipped, and whether the loss is a number."""
    with bench(report) as measured:
        figures = measured.train(
            changes(report, **weekly.speed_switches()["fp16, autocast"]), HALF_STEPS
        )
    skipped = figures["skipped_steps"]
    report.figure("skipped steps", skipped, f"of {figures['steps']}")
    report.check("most steps train", skipped < figures["steps"] // 2)
    report.check("the loss is finite", math.isfinite(figures["loss"]), str(figures["loss"]))


def four_bit(report: Report) -> None:
    """A small Qwen2.5-VL of 4 layers in NF4 with LoRA: trained whole, and cut and resumed."""
    if find_spec("bitsandbytes") is None or find_spec("peft") is None:
        raise Skip("bitsandbytes or peft is not installed")
    from engines.vqa import Params
    from tests.engines import engine_runs, tiny_vqa

    folder = report.scratch / "nf4"
    tiny_vqa.SIZES |= {"layers": 4, "width": 64, "inner": 128}
    if not folder.exists():
        folder.mkdir()
        tiny_vqa.write(folder)
    settings = {"quantize": "nf4", "precision": "auto", "max_steps": 6, "epochs": 2,
                "lora_dropout": 0.2}  # fmt: skip
    settings |= {"deterministic": True} if "deterministic" in Params.model_fields else {}

    def go(name: str, steps: int = 0) -> list[Any]:
        spec = tiny_vqa.spec(folder, settings=settings)
        emit = engine_runs.Impatient(steps) if steps else None
        return tiny_vqa.go(spec, folder / name, emit)

    with engine_runs.configured(folder):
        whole = go("whole")
        try:
            go("cut", steps=3)
        except Stopped:
            report.figure("stopped after a checkpoint", value=True)
        go("cut")
    losses = [message.loss for message in whole if message.kind == "step"]
    report.figure("losses", str([round(loss, 3) for loss in losses]))
    report.check("losses are finite", all(map(math.isfinite, losses)))
    same = engine_runs.weights(folder / "whole") == engine_runs.weights(folder / "cut")
    report.check("a resumed run ends with the same bits", same)
    peaks = [m.vram_allocated_peak for m in whole if m.kind == "memory" and m.phase == "train"]
    report.figure("allocated in training, bytes", peaks[0] if peaks else None)
