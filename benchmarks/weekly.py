"""The weekly report's largest epoch, made of random pixels and tokens: for benchmarks without data.

Settings are those of the preset `weekly-m2kr` and of its model's entry; the sizes of the model are
those that ship with the engine. The training is put together by the engine's own `assemble`, so an
epoch here is one of `workbench run --preset weekly-m2kr`, without decoding and tokenizing.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import CLIPConfig, CLIPModel

from engines import messages, model_catalog, protocol
from engines.emitter import Emitter
from engines.retrieval import tasks
from engines.retrieval.context import Context
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.data.pairs import ItemRows, PairBatch, PairCollator, TrainingPairs
from engines.retrieval.memory import model_from_config
from engines.retrieval.models import factory
from engines.retrieval.models.clip import ClipEncoder
from engines.retrieval.models.tokenizer import TextTokenizer
from engines.retrieval.params import Params
from engines.retrieval.prepare import PreparedEncoder
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.memory import known_configs
from engines.torchkit.modeling.image_encoders import ImageEncoder
from engines.torchkit.modeling.image_normalization import CLIP
from engines.torchkit.runtime import device
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import loop
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch
from workbench.planning import availability, plan

PRESET = "weekly-m2kr"
OVEN = 339_137
"""Pairs of `oven_train`: 5,299 batches of 64 and one of 1."""
PASSAGES = 10_000
"""Distinct passages, each with a picture."""
REPORT_SECONDS = 8 * 60 + 1.39
"""`oven_train` in the weekly report, whole process."""
BLOCK_ROWS = 512
END = 49_407


@dataclass(frozen=True)
class Sizes:
    """How much of the epoch is made, and how wide the model is."""

    pairs: int = OVEN
    passages: int = PASSAGES
    image_size: int = 224
    thin: int = 1
    """Divides the widths; tests."""

    @property
    def rows(self) -> int:
        """Pictures: every query and every passage has one."""
        return self.pairs + self.passages

    @property
    def cache_bytes(self) -> int:
        """Of the image cache."""
        return self.rows * self.image_size**2 * 3


def settings(sizes: Sizes, changes: dict[str, Any]) -> Params:
    """Those of the preset, with `changes`, as a plan would validate them."""
    chosen = plan.load_preset(PRESET)
    model_settings = availability.model_settings("retrieval", chosen.models[0])
    inputs = {"image_size": sizes.image_size, "data_root": None}
    return Params.model_validate({**model_settings, **chosen.settings, **inputs, **changes})


def speed_switches() -> dict[str, dict[str, Any]]:
    """Changes to the preset's settings, each measured alone. Only settings that there are."""
    switches: dict[str, dict[str, Any]] = {
        "preset": {},
        "fp32, ieee": {"precision": "fp32", "tf32": False, "mixed_precision": "autocast"},
        "fp32, tf32": {"precision": "fp32", "tf32": True, "mixed_precision": "autocast"},
        "autocast": {"mixed_precision": "autocast"},
        "fp16, autocast": {"precision": "fp16", "mixed_precision": "autocast"},
        "not fused": {"fused": False},
        "pinned": {"pin_memory": True},
        "4 workers": {"num_workers": 4},
        "4 workers, pinned": {"num_workers": 4, "pin_memory": True},
        "compile": {"compile": True},
        "compile, pinned": {"compile": True, "pin_memory": True},
        "compile, CUDA graphs, pinned": {"compile": True, "cuda_graphs": True, "pin_memory": True},
    }
    field_names = Params.model_fields.keys()
    return {name: changes for name, changes in switches.items() if changes.keys() <= field_names}


def make_images(path: Path, sizes: Sizes) -> tuple[np.memmap[Any, Any], float]:
    """A cache file of random pixels, dropped from the page cache; the seconds that writing took."""
    start_time = time.perf_counter()
    rng = np.random.default_rng(42)
    shape = (BLOCK_ROWS, sizes.image_size, sizes.image_size, 3)
    block = rng.integers(0, 256, shape, dtype=np.uint8)
    with path.open("wb") as file:
        for start in range(0, sizes.rows, BLOCK_ROWS):
            file.write(np.roll(block, start, axis=2)[: sizes.rows - start].data)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the epoch reads the disk
    return open_images(path, sizes), time.perf_counter() - start_time


def open_images(path: Path, sizes: Sizes) -> np.memmap[Any, Any]:
    """The cache file as an array [rows, side, side, 3]."""
    side = sizes.image_size
    return np.memmap(path, np.uint8, "r", shape=(sizes.rows, side, side, 3))


def make_pool(sizes: Sizes) -> tuple[TrainingPairs, TokenItems]:
    """Pairs, and texts of M2KR's lengths: queries of 20 to 44 tokens, passages of 77."""
    rng = np.random.default_rng(42)
    passage_lengths = np.full(sizes.passages, 77)
    lengths = np.concatenate([rng.integers(20, 45, sizes.pairs), passage_lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = rng.integers(1, END - 1, int(offsets[-1])).astype(np.int32)
    flat[offsets[1:] - 1] = END
    queries, drawn = np.arange(sizes.pairs), rng.integers(0, sizes.passages, sizes.pairs)
    passages = sizes.pairs + drawn
    sides = ItemRows(queries, queries), ItemRows(passages, passages)
    return TrainingPairs(*sides, drawn, np.arange(sizes.pairs + 1)), TokenItems(
        flat, offsets, pad=0
    )


def tiny_clip(thin: int, image_size: int, attention: str = "sdpa") -> CLIPModel:
    """The preset's model with random weights: 115,382,145 parameters at `thin` 1."""
    shipped_sizes = known_configs.find_config(preset_entry(), model_from_config.SHAPES)
    assert shipped_sizes is not None
    config = dict(shipped_sizes[0])
    for tower in ("text_config", "vision_config"):
        widths = ("hidden_size", "intermediate_size", "num_attention_heads")
        config[tower] = config[tower] | {n: max(1, config[tower][n] // thin) for n in widths}
    config["vision_config"]["image_size"] = image_size
    config["projection_dim"] //= thin
    torch.manual_seed(42)
    return CLIPModel(CLIPConfig.from_dict(config | {"attn_implementation": attention}))


def make_model(params: Params, thin: int, attention: str = "sdpa") -> ClipEncoder:
    """The encoder around it, its layers chosen as the settings say."""
    loaded = ImageEncoder(tiny_clip(thin, params.image_size, attention), CLIP)
    model = ClipEncoder(loaded, params.temperature)
    factory.configure_model(model, preset_entry(), params, TextTokenizer(Tokenizer(BPE()), 0, 0))
    return model


def preset_entry() -> model_catalog.ModelEntry:
    """The catalog's entry of the preset's model."""
    return model_catalog.load(plan.load_preset(PRESET).models[0])


class Bench:
    """One device, one set of pairs, any number of measurements."""

    def __init__(self, sizes: Sizes, array: np.memmap[Any, Any], scratch: Path) -> None:
        self.sizes, self.scratch = sizes, scratch
        self.images = ArrayItems([array])
        self.pool, self.texts = make_pool(sizes)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._runs = itertools.count()

    @contextmanager
    def job(
        self, changes: dict[str, Any], attention: str = "sdpa"
    ) -> Iterator[tuple[Params, tasks.Job]]:
        """Parameters and training of a run with these changes to the preset's settings."""
        params = settings(self.sizes, changes)
        entry = preset_entry()
        spec = protocol.RunSpec(
            suite="", run_id="epoch", engine="retrieval", subset="oven_train", model=entry.name,
            params=params.model_dump(mode="json"), cache_root=str(self.scratch),
        )  # fmt: skip
        device.configure_torch(params.threads, tf32=params.tf32)
        precision = Precision(params.precision, self.device)
        folder = self.scratch / f"run{next(self._runs)}"
        context = Context(spec, params, precision, Emitter(), folder, entry)
        model = make_model(params, self.sizes.thin, attention).to(self.device)
        prepared = PreparedEncoder(
            model=model, texts=self.texts, images=self.images, revision="random weights", facts={}
        )
        data: Any = SimpleNamespace(pairs=self.pool, subset=SimpleNamespace(fingerprint="random"))
        try:
            setup = tasks.set_up_training(context, data, prepared)
            yield params, tasks.create_training_job(setup, data, prepared)
        finally:
            del model, prepared
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def train(self, changes: dict[str, Any], steps: int = 0) -> dict[str, Any]:
        """Train through the loop of a run; `steps`: only so many of the epoch's. 0: all."""
        with self.job(changes) as (params, job):
            job.stop_at = min(job.steps, steps) if steps else None
            warmup = min(params.timing_warmup_steps, job.last_step // 2)
            ledger, emit = TimingSummary(job.steps, warmup), Emitter()
            reset_peaks(self.device)
            start = time.perf_counter()
            loop.train(job, StepTimer(stopwatch(self.device), warmup, job.steps), ledger, emit)
            self.wait()
            seconds, timing = time.perf_counter() - start, ledger.timing()
            windows = [message for message in emit.sent if isinstance(message, messages.Step)]
            return {
                "pairs": self.sizes.pairs, "steps": job.last_step, "seconds": seconds,
                "step_median": timing.step_median, "step_p95": timing.step_p95,
                "last_step": windows[-1].step_seconds[-1],
                "data_wait_share": timing.data_wait_share,
                "samples_per_second": timing.samples_per_second,
                "loss": statistics.fmean(window.loss for window in windows), **peaks(self.device),
                "skipped_steps": sum(getattr(w, "skipped_steps", 0) for w in windows),
            }  # fmt: skip

    def batches(self, count: int, batch: int) -> list[PairBatch]:
        """Batches that lie on the device."""
        gather = PairCollator(self.pool, self.texts, self.images, seed=42)
        rows = np.arange(min(len(self.pool), count * batch))
        parts = np.array_split(rows, max(1, len(rows) // batch))
        return [to_device(gather(part, 0), self.device) for part in parts]

    @contextmanager
    def resident(
        self, changes: dict[str, Any], attention: str = "sdpa"
    ) -> Iterator[Callable[[int], None]]:
        """A step over batches that lie on the device, as a function of its number."""
        with self.job(changes, attention) as (params, job):
            ready = self.batches(8, params.batch)
            parameters = list(job.model.parameters())
            scaler = job.precision.scaler
            job.model.train()

            def step(number: int) -> None:
                with job.precision.autocast():
                    outcome = job.forward(ready[number % len(ready)])
                scaler.scale(outcome.loss).backward()
                if job.weight_copies is not None:
                    job.weight_copies.collect_gradients()
                scaler.unscale_(job.optimizer)
                torch.nn.utils.clip_grad_norm_(parameters, params.max_grad_norm)
                scaler.step(job.optimizer)
                scaler.update()
                if job.weight_copies is not None:
                    job.weight_copies.refresh()
                job.optimizer.zero_grad(set_to_none=True)

            yield step

    def step_seconds(
        self, changes: dict[str, Any], steps: int, attention: str = "sdpa"
    ) -> list[float]:
        """Seconds of each of so many resident steps, on the device's time line, after a warm-up."""
        warmup = max(2, min(30, steps // 4))
        watch = stopwatch(self.device)
        with self.resident(changes, attention) as step:
            for number in range(warmup):
                step(number)
            marks = [watch.mark()]
            for number in range(steps):
                step(number)
                marks.append(watch.mark())
            self.wait()
        return [watch.between(a, b) for a, b in itertools.pairwise(marks)]

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def reset_peaks(target: torch.device) -> None:
    """Count the allocator's peaks anew."""
    if target.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def peaks(target: torch.device) -> dict[str, int | None]:
    """Bytes that torch's allocator held at most; None without a GPU."""
    if target.type != "cuda":
        return {"vram_allocated": None, "vram_reserved": None}
    return {
        "vram_allocated": torch.cuda.max_memory_allocated(),
        "vram_reserved": torch.cuda.max_memory_reserved(),
    }
