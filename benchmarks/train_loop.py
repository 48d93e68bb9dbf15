"""Samples per second of our training loop beside others, on the same model, pairs and batch.

    python benchmarks/train_loop.py --images 1900 --rounds 6

Contenders, interleaved round by round on one machine in one process:
  bare    the compute limit: the same steps over batches that already lie in memory as tensors
  ours    engines.torchkit.training.loop over the image cache and tokenized texts, as a run uses it
  hf      Hugging Face Trainer
  st      sentence-transformers

A rate counts the samples after `--warmup` steps over the wall clock from the end of the last
warm-up step to the end of the last step, data waits included. `bare` is also the plain reference:
its losses and ours must be bitwise equal. Building our caches is timed apart, from empty.

OpenMP's waiting and the reuse of freed memory are set for all as engines set them, unless the
environment says otherwise: threads that spin for long fight with loader workers for the cores.

`--apart` runs every round in a process of its own, as its users would find it: ours as the
workbench starts its engines; the others, and bare, with nothing set.
"""

from __future__ import annotations

import sys

from engines.child import set_openmp_spin

if not {"--untouched", "--apart"} & set(sys.argv):
    set_openmp_spin()  # before libgomp is loaded

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from train_peers import Tick, Work, hf_trainer, sentence_transformers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from datasets_mm.building.build import build
from datasets_mm.media.image_cache import ImageCache
from engines.emitter import Emitter
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.data.pairs import NONE, ItemRows, PairBatch, PairCollator, TrainingPairs
from engines.retrieval.loss import contrastive
from engines.retrieval.models import clip
from engines.retrieval.models import tokenizer as models_tokenizer
from engines.retrieval.tasks import read_openmp_wait
from engines.torchkit.data.data_loader import EpochPermutation, Loader
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.modeling import model_tokenizer
from engines.torchkit.runtime.device import reuse_freed_memory
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import loop
from engines.torchkit.training.optimization import adamw, set_lr, warmup_cosine
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch

SEED, TEMPERATURE = 42, 0.07
CAPTION_LETTERS = 120


@dataclass
class Clock:
    """Rate between the end of the warm-up and the end of the last step."""

    warmup: int
    steps: int
    batch: int
    cuda: bool
    marks: dict[int, float] = field(default_factory=dict)

    def __call__(self, done: int) -> None:
        if done in (self.warmup, self.steps):
            if self.cuda:
                torch.cuda.synchronize()
            self.marks[done] = time.perf_counter()

    def rate(self) -> float:
        """Samples per second."""
        seconds = self.marks[self.steps] - self.marks[self.warmup]
        return (self.steps - self.warmup) * self.batch / seconds


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--images", type=int, default=640, help="pairs per round")
    add("--rounds", type=int, default=6)
    add("--batch", type=int, default=64)
    add("--warmup", type=int, default=2, help="steps left out of the rate")
    add("--image-size", type=int, default=224)
    add("--width", type=int, default=128)
    add("--layers", type=int, default=2)
    add("--threads", type=int, default=2)
    add("--workers", type=int, default=2, help="loader workers of the others")
    add("--own-workers", type=int, default=0, help="loader threads of ours")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--cache-root", type=Path, default=None, help="where OpenMoji-KB is, or will be, built")
    add(
        "--pictures",
        choices=("drawings", "photos"),
        default="photos",
        help="OpenMoji PNGs of 224 px (1 ms each), or JPEGs of 640 x 480 made of them, as M2KR's",
    )
    add("--only", nargs="*", default=["bare", "ours", "hf", "st"])
    add("--out", type=Path, default=None, help="write all figures as JSON")
    add("--apart", action="store_true", help="every round in a process of its own")
    add("--untouched", action="store_true", help="leave OpenMP and malloc as they are")
    return parser.parse_args()


def make_model(folder: Path, texts: list[str], args: argparse.Namespace) -> None:
    """A CLIP folder that all contenders can load: weights, tokenizer, processor."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = models_tokenizer.get_or_train_tokenizer(texts, 6000, folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
        unk_token="<unk>", model_max_length=77,
    )  # fmt: skip
    shared = {
        "hidden_size": args.width, "intermediate_size": 4 * args.width,
        "num_attention_heads": args.width // 64,
    }  # fmt: skip
    config = CLIPConfig(
        text_config={
            **shared, "num_hidden_layers": max(1, args.layers * 2 // 3),
            "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 77,
            "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 4,
        },
        vision_config={
            **shared, "num_hidden_layers": args.layers, "image_size": args.image_size,
            "patch_size": 32,
        },
        projection_dim=args.width,
    )  # fmt: skip
    torch.manual_seed(SEED)
    CLIPModel(config).save_pretrained(folder)
    size = args.image_size
    processor = CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    CLIPProcessor(processor, fast).save_pretrained(folder)


def pairs(args: argparse.Namespace, cache_root: Path) -> tuple[list[Path], list[str]]:
    """Pictures (PNG files) and texts of a caption's length: records of OpenMoji-KB, shuffled."""
    subset = build("emoji_train", cache_root)
    short = [r for r in subset.records.to_pylist() if len(r["passage_text"][0]) <= CAPTION_LETTERS]
    random.Random(SEED).shuffle(short)
    rows = [short[number % len(short)] for number in range(args.images)]
    pictures = [subset.image_root / row["image_path"] for row in rows]
    return pictures, [row["passage_text"][0] for row in rows]


def as_photos(pictures: list[Path], folder: Path) -> list[Path]:
    """JPEGs of a usual photo's size and detail: the drawing over seeded noise of many scales."""
    folder.mkdir()
    photos: dict[Path, Path] = {}
    for path in pictures:
        if path in photos:
            continue
        rng = np.random.default_rng(len(photos))
        grain = np.zeros((480, 640, 3), np.float32)
        for side in (4, 16, 64, 240):
            coarse = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
            scaled = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
            grain += np.asarray(scaled, np.float32) / 4
        photo = Image.fromarray(grain.astype(np.uint8))
        with Image.open(path) as drawing:
            photo.paste(drawing.convert("RGB"), (208, 128), drawing.convert("RGBA"))
        photos[path] = folder / f"{path.stem}.jpg"
        photo.save(photos[path], quality=90)
    return [photos[path] for path in pictures]


def own_items(work: Work, cache_root: Path) -> tuple[ArrayItems, TokenItems, dict[str, float]]:
    """Our caches, built from empty, and what each took in seconds."""
    root = Path(*_common(work.pictures))
    names = [str(path.relative_to(root)) for path in work.pictures]
    start = time.perf_counter()
    cache = ImageCache.open(names, root, work.image_size, cache_root)
    decoded = time.perf_counter()
    tokenizer = model_tokenizer.from_folder(work.folder)
    tokens = TokenItems.tokenize(work.texts, tokenizer, 77, pad=0)
    done = time.perf_counter()
    places = np.array([(0, cache.row(name)) for name in names])
    seconds = {"images": decoded - start, "texts": done - decoded}
    return ArrayItems([cache.array], places), tokens, seconds


def _common(paths: list[Path]) -> list[str]:
    folders = [path.parent.parts for path in paths]
    shared = [part[0] for part in zip(*folders, strict=False) if len(set(part)) == 1]
    return list(shared)


class Ours:
    """Our loop, and the bare loop over the very same batches."""

    def __init__(self, work: Work, images: ArrayItems, tokens: TokenItems, workers: int) -> None:
        self.work, self.workers = work, workers
        self.device = torch.device("cpu" if work.cpu else "cuda")
        rows, none = np.arange(len(work.texts)), np.full(len(work.texts), NONE)
        self.pool = TrainingPairs(
            ItemRows(none, rows), ItemRows(rows, none), rows, np.append(rows, len(rows))
        )
        self.gather = PairCollator(self.pool, tokens, images, SEED)
        self.losses: dict[str, list[float]] = {"bare": [], "ours": []}

    def _job(self, name: str) -> loop.TrainingJob[PairBatch]:
        work = self.work
        model = clip.from_folder(work.folder, TEMPERATURE).to(self.device)
        precision = Precision("bf16" if work.precision == "bf16" else "fp32", self.device)
        kept = self.losses[name] = []

        def forward(batch: PairBatch) -> loop.LossOutput:
            loss, metrics = contrastive(*self._three(model, batch))
            kept.append(loss.detach())
            return loop.LossOutput(loss, metrics, len(batch))

        return loop.TrainingJob(
            model=model,
            loader=Loader(
                EpochPermutation(len(self.pool), work.batch, 1, SEED), self.gather, self.workers
            ),
            transfer=lambda batch: to_device(batch, self.device),
            forward=forward,
            optimizer=adamw(model, work.lr, 0.0, (0.9, 0.999), fused=True),
            lr_at=lambda step: work.lr * warmup_cosine(step, work.steps, 0),
            precision=precision,
            steps=work.steps,
            max_grad_norm=1.0,
        )

    def _three(self, model: Any, batch: PairBatch) -> tuple[torch.Tensor, ...]:
        queries, passages, scale = model(batch.queries, batch.passages)
        return queries, passages, batch.positive, scale

    def ours(self, _work: Work, tick: Tick) -> None:
        """The loop of every run, with its meter."""
        job = self._job("ours")
        per_epoch = job.loader.order.steps_per_epoch
        inner = job.lr_at

        def lr_at(step: int) -> float:
            tick(step)  # the end of the step before
            return inner(step)

        job.lr_at = lr_at
        meter = StepTimer(stopwatch(self.device), 0, per_epoch)
        loop.train(job, meter, TimingSummary(per_epoch, 0), Emitter())
        tick(job.steps)

    def bare(self, _work: Work, tick: Tick) -> None:
        """Forward, backward, clip, step; nothing else."""
        job = self._job("bare")
        order = job.loader.order
        ready = [
            job.transfer(self.gather(rows, order.epoch(step)))
            for step in range(job.steps)
            for rows in order.micro_batches(step)
        ]
        parameters = list(job.model.parameters())
        job.model.train()
        for step, batch in enumerate(ready):
            set_lr(job.optimizer, job.lr_at(step))
            with job.precision.autocast():
                loss = job.forward(batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            job.optimizer.step()
            job.optimizer.zero_grad(set_to_none=True)
            tick(step + 1)


def main() -> int:
    args = parse()
    return apart(args) if args.apart else together(args)


def apart(args: argparse.Namespace) -> int:
    """Every round of every contender in a fresh process, in an order that turns."""
    words = [word for word in sys.argv[1:] if word != "--apart"]
    rates: dict[str, list[float]] = {name: [] for name in args.only}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="train-loop-") as scratch:
        out = Path(scratch, "round.json")
        for number in range(args.rounds):
            for name in args.only if number % 2 == 0 else args.only[::-1]:
                command = [sys.executable, __file__, *words, "--rounds", "1", "--only", name]
                command += ["--out", str(out)] + ([] if name == "ours" else ["--untouched"])
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                result = json.loads(out.read_text())
                rates[name] += result["rates"][name]
                seconds = result["cache_seconds"]
    return report(args, rates, seconds, None)


def together(args: argparse.Namespace) -> int:
    """All contenders in this process, interleaved round by round."""
    torch.set_num_threads(args.threads)
    if not args.untouched:
        reuse_freed_memory()
    with tempfile.TemporaryDirectory(prefix="train-loop-") as scratch:
        folder, fresh = Path(scratch, "clip"), Path(scratch, "cache")
        folder.mkdir()
        pictures, texts = pairs(args, args.cache_root or fresh)
        if args.pictures == "photos":
            pictures = as_photos(pictures, Path(scratch, "photos"))
        make_model(folder, texts, args)
        tokens = [e.ids for e in model_tokenizer.from_folder(folder).encode_batch(texts)]
        work = Work(
            folder, pictures, texts, [ids[:76] + ids[-1:] for ids in tokens], args.batch,
            args.images // args.batch, 1e-3, args.image_size, args.precision, args.workers,
            cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        images, own_tokens, seconds = own_items(work, fresh)
        mine = Ours(work, images, own_tokens, args.own_workers)
        contenders: dict[str, Callable[[Work, Tick], None]] = {
            "bare": mine.bare, "ours": mine.ours, "hf": hf_trainer, "st": sentence_transformers,
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in args.only}
        for number in range(args.rounds):
            turn = args.only if number % 2 == 0 else args.only[::-1]
            for name in turn:
                clock = Clock(args.warmup, work.steps, args.batch, cuda=not work.cpu)
                contenders[name](work, clock)
                rates[name].append(clock.rate())
                print(f"round {number + 1} {name:5} {clock.rate():8.1f} samples/s", file=sys.stderr)
        equal = _equal(mine.losses) if {"bare", "ours"} <= set(args.only) else None
    return report(args, rates, seconds, equal)


def _equal(losses: dict[str, list[Any]]) -> bool:
    return torch.equal(torch.stack(losses["bare"]), torch.stack(losses["ours"]))


def report(
    args: argparse.Namespace, rates: dict[str, list[float]], seconds: dict[str, float],
    equal: bool | None,
) -> int:  # fmt: skip
    """Medians and the ratios that matter; exit code 1 when losses differ."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    waiting = "each in its own environment" if args.apart else f"OpenMP {read_openmp_wait()}"
    print(f"{args.images} pairs a round ({args.pictures}), batch {args.batch}, {args.rounds} "
          f"rounds, {args.image_size} px, {args.precision}, {args.threads} threads, "
          f"{waiting}")  # fmt: skip
    print(f"building our caches: images {seconds['images']:.2f} s, texts {seconds['texts']:.2f} s")
    for name, median in medians.items():
        low, high = min(rates[name]), max(rates[name])
        paired = [a / b for a, b in zip(rates[name], rates.get("bare", rates[name]), strict=True)]
        print(f"{name:5} {median:8.1f} samples/s  [{low:.1f}, {high:.1f}]  "
              f"{statistics.median(paired):.3f} of bare")  # fmt: skip
    if others := [medians[n] for n in ("hf", "st") if n in medians]:
        print(f"ours / better of the others: {medians.get('ours', 0) / max(others):.2f}")
    if equal is not None:
        print(f"losses of ours and the plain loop: {'bitwise equal' if equal else 'DIFFERENT'}")
    if args.out:
        content = {"rates": rates, "cache_seconds": seconds, "equal_losses": equal}
        args.out.write_text(json.dumps(content, indent=1))
    return 1 if equal is False else 0


if __name__ == "__main__":
    sys.exit(main())
