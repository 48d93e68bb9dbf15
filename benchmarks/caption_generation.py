"""Captions in batches against one by one: the same model, the same media, one machine.

A captioner is trained first (so that captions end as trained ones do), then its captions of
`--media` media are generated in every way, in turns, so that a machine that slows down slows all.
One by one is greedy decoding with the same key-value cache, a medium at a time. Captions must be
the same in every way; a batch of another size has other last bits in its products, so those that
differ are counted.

    python benchmarks/caption_generation.py                      # nano-captioner on a CPU
    python benchmarks/caption_generation.py --model qwen3-8b-clip-l14 --precision bf16    # a GPU
    python benchmarks/caption_generation.py --profile            # operators of a batch
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines import model_catalog
from engines.captioning import Params, tasks
from engines.captioning.data.dataset import read_data
from engines.captioning.models.vision import VisionTower
from engines.captioning.prepare import PreparedCaptioner, prepare
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.torchkit.modeling import lora
from engines.torchkit.modeling.eval_mode import eval_mode
from engines.torchkit.runtime import run_setup
from engines.torchkit.training import trained_model
from workbench import paths

Captions = list[list[int]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--model", default="nano-captioner", help="a captioner of `workbench models`")
    add("--subset", default="emoji_captions_en_train")
    add("--media", type=int, default=64)
    add("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    add("--rounds", type=int, default=5)
    add("--epochs", type=float, default=2.0, help="of the training; 0: ten steps, for speed alone")
    add("--max-new-tokens", type=int, default=24)
    add("--repetition-penalty", type=float, default=1.0)
    add("--precision", default="fp32")
    add("--threads", type=int, default=0)
    add("--quantize", nargs="+", default=["nf4", "none"])
    add("--folder", type=Path, help="keeps the trained models, and takes those that are there")
    add("--profile", action="store_true", help="operators of one batch, by their own time")
    add("--out", type=Path)
    return parser.parse_args()


@dataclass(frozen=True)
class Contender:
    """A model with its LoRA as it is, or merged, and the media that it captions."""

    ready: PreparedCaptioner
    features: Tensor
    """[n, F, N, D]"""
    autocast: Callable[[], Any]
    options: argparse.Namespace

    def generate(self, batch: int) -> Captions:
        """Captions of all media, `batch` at a time."""
        ids: Captions = []
        options = self.options
        with eval_mode(self.ready.model), self.autocast():
            for part in self.features.split(batch):
                ids += self.ready.model.generate(
                    part, options.max_new_tokens, options.repetition_penalty
                )
        return ids


def main() -> None:
    options = parse()
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for quantize in options.quantize:
            contenders = load(options, quantize, options.folder or Path(name))
            figures += measure(contenders, quantize, options)
    print_table(figures)
    if options.out:
        options.out.write_text(
            json.dumps({"options": vars(options), "figures": figures}, default=str)
        )


def load(options: argparse.Namespace, quantize: str, root: Path) -> dict[str, Contender]:
    """A trained captioner, and the same with merged adapters."""
    length = {"epochs": options.epochs} if options.epochs else {"max_steps": 10}
    train(options, root, quantize, {**length, "evaluate_on": (), "evaluate_train": 0})
    return {
        "LoRA apart": prepare_contender(options, root, quantize, merged=False),
        "LoRA merged": prepare_contender(options, root, quantize, merged=True),
    }


def make_spec(options: argparse.Namespace, quantize: str, **changes: Any) -> RunSpec:
    entry = model_catalog.load(options.model)
    params = Params.model_validate(
        {
            **entry.settings, "quantize": quantize, "precision": options.precision,
            "threads": options.threads, "scorers": (), "validate_every_epochs": 0,
            **changes.pop("settings", {}),
        }
    )  # fmt: skip
    base = {"suite": "benchmark", "engine": "captioning", "subset": options.subset,
            "model": options.model, "cache_root": str(paths.cache_root())}  # fmt: skip
    return RunSpec(**{**base, "params": params.model_dump(mode="json"), **changes})


def train(options: argparse.Namespace, root: Path, quantize: str, settings: dict[str, Any]) -> None:
    run_dir = root / "suite" / "runs" / f"trained-{quantize}"
    if (run_dir / "checkpoints" / "last").is_dir():
        return
    run_dir.mkdir(parents=True)
    with closing_emitter() as emit:
        spec = make_spec(options, quantize, run_id=run_dir.name, settings=settings)
        tasks.CaptioningTask(spec, emit, run_dir).run()
    losses = [m.loss for m in emit.sent if m.kind == "step"]
    print(f"{options.model}, {quantize}: trained to a loss of {losses[-1]:.3f}", flush=True)


def prepare_contender(
    options: argparse.Namespace, root: Path, quantize: str, *, merged: bool
) -> Contender:
    """The trained model with the features of `media` media on its device."""
    run_dir = root / "suite" / "runs" / f"evaluated-{quantize}-{'merged' if merged else 'apart'}"
    run_dir.mkdir(exist_ok=True)
    with closing_emitter() as emit:
        spec = make_spec(
            options, quantize, run_id=run_dir.name, model=f"run:trained-{quantize}", task="evaluate"
        )
        params = Params.model_validate(spec.params)
        context = tasks.resolve_model(run_setup.begin_run(spec, params, emit, run_dir))
        tower = VisionTower(
            tasks.resolve_part(context, "vision"), context.params, context.precision
        )
        data = read_data(context, tower.shape.image_size)
        ready = prepare(context, data, tower)
        trained_model.load_trained_weights(ready.model, context.trained)
        if merged:
            with eval_mode(ready.model):
                lora.merge_adapters(ready.model.llm)
        rows = data.train.select_evenly(options.media).rows
        features = ready.encode_features(ready.items.gather(rows).to(context.device))
    return Contender(ready, features, context.precision.autocast, options)


@contextmanager
def closing_emitter() -> Iterator[Emitter]:
    emit = Emitter()
    try:
        yield emit
    finally:
        emit.close()


def measure(
    contenders: dict[str, Contender], quantize: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Seconds a caption by LoRA and batch, in interleaved rounds, and the captions that differ."""
    ways = [(name, batch) for name in contenders for batch in options.batches]
    seconds: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    captions: dict[tuple[str, int], Captions] = {}
    for number in range(options.rounds + 1):
        for way in ways:
            start = time.perf_counter()
            captions[way] = contenders[way[0]].generate(way[1])
            took = time.perf_counter() - start
            if number:  # the first round chooses kernels
                seconds[way].append(took / options.media)
    if options.profile:
        profile(contenders["LoRA apart"], max(options.batches))
    first = ways[0]
    return [
        {
            "weights": quantize, "lora": name, "batch": batch,
            "seconds": statistics.median(seconds[name, batch]),
            "range": (min(seconds[name, batch]), max(seconds[name, batch])),
            "ratio": statistics.median(
                single / batched
                for single, batched in zip(seconds[name, 1], seconds[name, batch], strict=True)
            ) if 1 in options.batches else None,
            "differ": count_differences(captions[first], captions[name, batch]),
            "mean_tokens": float(np.mean([len(ids) + 1 for ids in captions[name, batch]])),
        }
        for name, batch in ways
    ]  # fmt: skip


def count_differences(captions: Sequence[list[int]], others: Sequence[list[int]]) -> int:
    return sum(ids != other for ids, other in zip(captions, others, strict=True))


def profile(contender: Contender, batch: int) -> None:
    with torch.profiler.profile() as recorded:
        contender.generate(batch)
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=16))


def print_table(figures: Sequence[dict[str, Any]]) -> None:
    print("| weights | LoRA | batch | ms a caption | speed-up | tokens | captions that differ |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in figures:
        low, high = (1000 * edge for edge in row["range"])
        ratio = f"{row['ratio']:.2f}x" if row["ratio"] else "-"
        print(
            f"| {row['weights']} | {row['lora']} | {row['batch']} | {1000 * row['seconds']:.1f} "
            f"[{low:.1f}, {high:.1f}] | {ratio} | {row['mean_tokens']:.1f} | {row['differ']} |"
        )


if __name__ == "__main__":
    main()
