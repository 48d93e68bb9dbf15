"""The weekly report's largest epoch in shape: what it costs here, and what each switch is worth.

    python benchmarks/gpu_epoch.py --folder /disk/with/60/GB

Makes a uint8 image cache of the epoch's size on disk (random pixels, random tokens of M2KR's
lengths; no network and no data needed), then:
  epoch     339,137 pairs with text and image on both sides, batch 64, bf16, TinyCLIP-61M's
            architecture with random weights, through engines.torchkit.loop as a run uses it
  device    the same steps over batches that already lie on the device
  switches  step time with each speed switch alone, over batches on the device

Without a GPU it runs on the CPU; tests do so at a thousandth of the size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from engines import protocol
from engines.emitter import Emitter
from engines.retrieval.clip import ClipEncoder
from engines.retrieval.items import ArrayItems, TokenItems
from engines.retrieval.loss import contrastive
from engines.retrieval.pairs import PairBatch, PairGatherer, Pool, Side, to_device
from engines.torchkit import loop
from engines.torchkit.batches import Loader, Order
from engines.torchkit.measure import Ledger, Meter, stopwatch
from engines.torchkit.optimizers import adamw
from engines.torchkit.precision import Precision
from engines.torchkit.schedules import warmup_cosine

REPORT_SECONDS = 8 * 60 + 1.39
"""`oven_train` in the weekly report: 339,137 pairs in 8:01.39, whole process."""
SEED, TEMPERATURE, LR = 42, 0.07, 2e-5
BLOCK_ROWS = 512


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--pairs", type=int, default=339_137)
    add("--passages", type=int, default=10_000, help="distinct passages, each with a picture")
    add("--batch", type=int, default=64)
    add("--image-size", type=int, default=224)
    add("--thin", type=int, default=1, help="divide the widths by this (tests)")
    add("--workers", type=int, default=4, help="loader threads")
    add("--precision", choices=("bf16", "fp32"), default="bf16")
    add("--steps", type=int, default=200, help="steps of each measurement besides the epoch")
    add("--compile", action="store_true", help="compile the towers for the epoch too")
    add("--skip", nargs="*", default=[], choices=("epoch", "device", "switches"))
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the cache is made")
    add("--out", type=Path, default=None, help="write all figures as JSON")
    return parser.parse_args()


# -- what is trained -----------------------------------------------------------------------


def tiny_clip(thin: int, image_size: int, attention: str = "sdpa") -> CLIPModel:
    """TinyCLIP ViT-61M/32 Text-29M with random weights: 115,382,145 parameters at `thin` 1.

    Sizes: wkcn/TinyCLIP, model_configs/TinyCLIP-ViT-61M-32-Text-29M.json.
    """
    torch.manual_seed(SEED)
    config = CLIPConfig(
        text_config={
            "hidden_size": 512 // thin, "intermediate_size": 2048 // thin, "num_hidden_layers": 9,
            "num_attention_heads": 8 // thin or 1, "vocab_size": 49_408,
            "max_position_embeddings": 77, "hidden_act": "gelu", "eos_token_id": 49_407,
        },
        vision_config={
            "hidden_size": 640 // thin, "intermediate_size": 2560 // thin, "num_hidden_layers": 12,
            "num_attention_heads": 10 // thin or 1, "patch_size": 32, "image_size": image_size,
            "hidden_act": "gelu",
        },
        projection_dim=512 // thin,
        attn_implementation=attention,
    )  # fmt: skip
    return CLIPModel(config)


@dataclass
class Data:
    """Pairs in memory maps, as a run has them."""

    pool: Pool
    texts: TokenItems
    images: ArrayItems


def make_images(path: Path, rows: int, side: int) -> tuple[np.memmap[Any, Any], float]:
    """A cache file of random pixels, thrown out of the page cache; seconds that writing it took."""
    began = time.perf_counter()
    rng = np.random.default_rng(SEED)
    block = rng.integers(0, 256, (BLOCK_ROWS, side, side, 3), dtype=np.uint8)
    with path.open("wb") as file:
        for start in range(0, rows, BLOCK_ROWS):
            file.write(np.roll(block, start, axis=2)[: rows - start].data)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the epoch reads the disk
    array = np.memmap(path, np.uint8, "r", shape=(rows, side, side, 3))
    return array, time.perf_counter() - began


def make_data(args: argparse.Namespace, array: np.memmap[Any, Any]) -> Data:
    """Queries of about 30 tokens, passages that fill the context: M2KR's lengths."""
    rng = np.random.default_rng(SEED)
    lengths = np.concatenate([
        rng.integers(20, 45, args.pairs), np.full(args.passages, 77),
    ])  # fmt: skip
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = rng.integers(1, 49_406, int(offsets[-1])).astype(np.int32)
    flat[offsets[1:] - 1] = 49_407
    queries, chosen = np.arange(args.pairs), rng.integers(0, args.passages, args.pairs)
    passages = args.pairs + chosen
    pool = Pool(Side(queries, queries), Side(passages, passages), chosen, np.arange(args.pairs + 1))
    return Data(pool, TokenItems(flat, offsets, pad=0), ArrayItems([array]))


class Bench:
    """One machine, one set of pairs, any number of measurements."""

    def __init__(self, args: argparse.Namespace, data: Data) -> None:
        self.args, self.data = args, data
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = Precision(args.precision, self.device)

    def gather(self) -> PairGatherer:
        """Makes batches out of the memory maps."""
        made = PairGatherer(self.data.pool, self.data.texts, self.data.images, SEED)
        made.pin = self.device.type == "cuda"
        return made

    def job(self, model: ClipEncoder, *, fused: bool = True) -> loop.Training[PairBatch]:
        """The training of a run over all pairs."""
        order = Order(self.args.pairs, self.args.batch, 1, SEED)
        steps = order.steps_per_epoch

        def forward(batch: PairBatch) -> loop.Outcome:
            queries, passages, scale = model(batch.queries, batch.passages)
            loss, metrics = contrastive(queries, passages, batch.positive, scale)
            return loop.Outcome(loss, metrics, len(batch))

        return loop.Training(
            model=model,
            loader=Loader(order, self.gather(), self.args.workers),
            transfer=lambda batch: to_device(batch, self.device),
            forward=forward,
            optimizer=adamw(model, LR, 0.0, (0.9, 0.999), fused=fused),
            lr_at=lambda step: LR * warmup_cosine(step, steps, 0),
            precision=self.precision,
            steps=steps,
            clip_norm=1.0,
        )

    def model(self, attention: str = "sdpa") -> ClipEncoder:
        """Random weights on the device."""
        clip = tiny_clip(self.args.thin, self.args.image_size, attention)
        return ClipEncoder(clip, TEMPERATURE).to(self.device)

    def epoch(self) -> dict[str, Any]:
        """The whole epoch through the loop of a run."""
        model = self.model()
        if self.args.compile:
            model.compile_towers()
        job = self.job(model)
        warmup = min(20, job.steps // 2)
        ledger, emit = Ledger(job.steps, warmup), Emitter()
        with Vram(self.device) as vram:
            began = time.perf_counter()
            loop.train(job, Meter(stopwatch(self.device), warmup, job.steps), ledger, emit)
            self.wait()
            seconds = time.perf_counter() - began
        timing: protocol.Timing = ledger.timing()
        return {
            "pairs": self.args.pairs, "steps": job.steps, "seconds": seconds,
            "step_median": timing.step_median, "step_p95": timing.step_p95,
            "data_wait_share": timing.data_wait_share,
            "samples_per_second": timing.samples_per_second, **vram.peaks(),
        }  # fmt: skip

    def resident(self, **switches: Any) -> float:
        """Median seconds of a step over batches that already lie on the device."""
        model = self.model(switches.get("attention", "sdpa"))
        if switches.get("compile"):
            model.compile_towers()
        if switches.get("graphs"):
            model.clip.text_model.compile(mode="reduce-overhead", dynamic=False)
            model.clip.vision_model.compile(mode="reduce-overhead", dynamic=False)
        torch.backends.cuda.matmul.fp32_precision = "tf32" if switches.get("tf32", True) else "ieee"
        job = self.job(model, fused=switches.get("fused", True))
        warmup = max(2, min(30, self.args.steps // 4))
        ready = [
            job.transfer(batch)
            for _, batches in Loader(job.loader.order, self.gather()).steps(0, min(8, job.steps))
            for batch in batches
        ]
        parameters = list(model.parameters())
        watch = stopwatch(self.device)
        marks = []
        model.train()
        for step in range(warmup + self.args.steps):
            if step >= warmup:
                marks.append(watch.mark())
            with job.precision.autocast():
                loss = job.forward(ready[step % len(ready)]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            job.optimizer.step()
            job.optimizer.zero_grad(set_to_none=True)
        marks.append(watch.mark())
        self.wait()
        return statistics.median(watch.between(a, b) for a, b in pairwise(marks))

    def switches(self) -> dict[str, float]:
        """Median step seconds: all off, and each switch alone."""
        off = {"attention": "eager", "fused": False, "tf32": False}
        alone: dict[str, dict[str, Any]] = {
            "all off": off, "sdpa": {**off, "attention": "sdpa"}, "fused": {**off, "fused": True},
        }  # fmt: skip
        if self.device.type == "cuda":
            alone |= {
                "tf32": {**off, "tf32": True}, "compile": {**off, "compile": True},
                "graphs": {**off, "graphs": True},
                "all but graphs": {"compile": True},
            }  # fmt: skip
        return {name: self.resident(**set_to) for name, set_to in alone.items()}

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Vram:
    """Peaks of one measurement: torch's own, and NVML's for the device, sampled every 0.2 s."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._nvml = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Vram:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._cuda:
            self._thread.join()

    def _sample(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        while not self._over.wait(0.2):
            self._nvml = max(self._nvml, pynvml.nvmlDeviceGetMemoryInfo(handle).used)

    def peaks(self) -> dict[str, int | None]:
        """Bytes; null without a GPU."""
        if not self._cuda:
            return dict.fromkeys(("vram_allocated", "vram_reserved", "vram_device"))
        return {
            "vram_allocated": torch.cuda.max_memory_allocated(),
            "vram_reserved": torch.cuda.max_memory_reserved(),
            "vram_device": self._nvml,
        }


def main() -> int:
    args = parse()
    rows = args.pairs + args.passages
    need = rows * args.image_size**2 * 3
    args.folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(args.folder).free < need * 1.05:
        print(f"{args.folder} lacks {need / 2**30:.1f} GiB for the image cache; give another "
              "--folder or fewer --pairs", file=sys.stderr)  # fmt: skip
        return 2
    with tempfile.TemporaryDirectory(prefix="gpu-epoch-", dir=args.folder) as scratch:
        array, seconds = make_images(Path(scratch, "rows.u8"), rows, args.image_size)
        bench = Bench(args, make_data(args, array))
        figures: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
            "torch": torch.__version__,
            "cache": {"rows": rows, "bytes": need, "seconds": seconds},
        }
        if "epoch" not in args.skip:
            figures["epoch"] = bench.epoch()
        if "device" not in args.skip:
            figures["device_step"] = bench.resident(compile=args.compile)
        if "switches" not in args.skip:
            figures["switches"] = bench.switches()
    report(figures, compared=args.pairs == 339_137)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1))
    return 0


def report(figures: dict[str, Any], *, compared: bool) -> None:
    """What was measured, as Markdown."""
    cache = figures["cache"]
    print(f"{figures['device']}, torch {figures['torch']}; image cache of {cache['rows']:,} rows, "
          f"{cache['bytes'] / 2**30:.1f} GiB, written in {cache['seconds']:.1f} s\n")  # fmt: skip
    epoch = figures.get("epoch")
    if epoch:
        beside = f" (the report's: {REPORT_SECONDS:.2f} s, whole process)" if compared else ""
        print(f"epoch: {epoch['pairs']:,} pairs, {epoch['steps']:,} steps: "
              f"**{epoch['seconds']:.2f} s**{beside}")  # fmt: skip
        print(f"step median {epoch['step_median'] * 1e3:.2f} ms, "
              f"p95 {epoch['step_p95'] * 1e3:.2f} ms; "
              f"data_wait {epoch['data_wait_share']:.2%}; "
              f"{epoch['samples_per_second']:,.0f} samples/s")  # fmt: skip
        for name in ("vram_allocated", "vram_reserved", "vram_device"):
            size = epoch[name]
            print(f"{name} peak: {'n/a (no GPU)' if size is None else f'{size / 2**30:.2f} GiB'}")
    if "device_step" in figures:
        step = figures["device_step"]
        ratio = f"; the epoch's step is {epoch['step_median'] / step:.3f} of it" if epoch else ""
        print(f"step over batches on the device: {step * 1e3:.2f} ms{ratio}")
    if switches := figures.get("switches"):
        print("\n| switch alone | step | of all off |\n|---|---:|---:|")
        base = switches["all off"]
        for name, step in switches.items():
            print(f"| {name} | {step * 1e3:.2f} ms | {step / base:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
