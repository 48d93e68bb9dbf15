"""Data loading: photos, the image cache, five epochs over it, and memory.

    python benchmarks/loader.py --photos 5000

  build     pictures/s of filling the image cache, against cores x one core's decode + resize,
            and against processes that share nothing: what the machine itself allows
  training  `data_wait` as a share of step time in the steady state, over the finished cache
  memory    sum of PSS of the process tree after each epoch, for each number of loader threads

JPEGs of 640 x 480 are made from OpenMoji's drawings over seeded noise (train_loop.as_photos).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
from train_loop import Ours, as_photos, make_model, pairs
from train_peers import Work

from datasets_mm.media.decode import decode, read_inside
from datasets_mm.media.image_cache import ImageCache
from engines import messages
from engines.emitter import Emitter
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.torchkit.data.data_loader import Loader
from engines.torchkit.modeling import model_tokenizer
from engines.torchkit.training import loop
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch

EPOCHS = 5


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--photos", type=int, default=5000)
    add("--batch", type=int, default=64)
    add("--image-size", type=int, default=224)
    add("--width", type=int, default=128)
    add("--layers", type=int, default=2)
    add("--workers", type=int, nargs="*", default=[0, 1, 2], help="loader threads to try")
    add("--rounds", type=int, default=3, help="of filling the cache, interleaved with one core's")
    add("--cache-root", type=Path, default=None, help="where OpenMoji-KB is, or will be, built")
    add("--out", type=Path, default=None, help="write all figures as JSON")
    args = parser.parse_args()
    args.images = args.photos
    return args


def distinct(pictures: list[Path], count: int, folder: Path) -> list[Path]:
    """Photos, every one with its own bytes: the drawings are fewer than the photos asked for."""
    originals = list(dict.fromkeys(pictures))
    photos = as_photos(originals, folder)
    out = list(photos)
    for number in range(count - len(photos)):
        source = photos[number % len(photos)]
        copy = folder / f"{number:05}-{source.name}"
        data = source.read_bytes()
        # A comment segment after the start marker: another content hash, the same picture.
        text = str(number).encode()
        mark = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
        copy.write_bytes(data[:2] + mark + data[2:])
        out.append(copy)
    return out[:count]


def one_core(photos: list[Path], side: int) -> float:
    """Pictures a second of reading, decoding and resizing in one thread."""
    began = time.perf_counter()
    for path in photos:
        decode(read_inside(path.parent, path.name), side, "bicubic")
    return len(photos) / (time.perf_counter() - began)


def cores_apart(photos: list[Path], side: int, cores: int) -> float:
    """Pictures a second of one process a core, each with pictures of its own and nothing shared.

    What the machine itself allows: cores that share a cache, a clock or a physical core are slower
    together than cores x one core.
    """
    parts = [photos[part::cores] for part in range(cores)]
    with ProcessPoolExecutor(cores, multiprocessing.get_context("fork")) as pool:
        list(pool.map(one_core, [part[:20] for part in parts], [side] * cores))
        return sum(pool.map(one_core, parts, [side] * cores))


def fill(photos: list[Path], side: int, cache: Path) -> tuple[ImageCache, float]:
    """A new image cache, and pictures a second of filling it."""
    began = time.perf_counter()
    image_cache = ImageCache.open([p.name for p in photos], photos[0].parent, side, cache)
    return image_cache, len(photos) / (time.perf_counter() - began)


def pss() -> int:
    """Sum of PSS of this process and its children, in bytes."""
    children = Path("/proc/self/task").glob("*/children")
    pids = {os.getpid(), *(int(p) for file in children for p in file.read_text().split())}
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def train(mine: Ours, workers: int) -> dict[str, Any]:
    """Five epochs; the share of waiting after the first, and memory at the end of each."""
    job = mine._job("ours")
    order = job.loader.order
    job.steps = EPOCHS * order.steps_per_epoch
    job.loader = Loader(order, job.loader._gather, workers)
    memory: list[int] = []
    inner = job.lr_at

    def lr_at(step: int) -> float:
        if step and step % order.steps_per_epoch == 0:
            memory.append(pss())
        return inner(min(step, mine.work.steps - 1))

    job.lr_at = lr_at
    emit = Emitter()
    meter = StepTimer(stopwatch(mine.device), order.steps_per_epoch, order.steps_per_epoch)
    ledger = TimingSummary(order.steps_per_epoch, order.steps_per_epoch)
    loop.train(job, meter, ledger, emit)
    memory.append(pss())
    timing: messages.Timing = ledger.timing()
    return {
        "num_workers": workers, "data_wait_share": timing.data_wait_share,
        "samples_per_second": timing.samples_per_second, "pss": memory,
    }  # fmt: skip


def main() -> int:
    args = parse()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="loader-") as scratch:
        folder, fresh = Path(scratch, "clip"), Path(scratch, "cache")
        folder.mkdir()
        pictures, texts = pairs(args, args.cache_root or fresh)
        photos = distinct(pictures, args.photos, Path(scratch, "photos"))
        single, apart, filled = [], [], []
        for number in range(args.rounds):
            few = photos[: max(50, args.photos // 5)]
            single.append(one_core(few, args.image_size))
            apart.append(cores_apart(few, args.image_size, cores))
            cache, rate = fill(photos, args.image_size, Path(scratch, f"cache-{number}"))
            filled.append(rate)
        rates = {"one core": single, f"{cores} processes apart": apart, "the cache": filled}
        shares = [
            rate / (cores * single_rate) for rate, single_rate in zip(filled, single, strict=True)
        ]
        make_model(folder, texts, args)
        tokens = TokenItems.tokenize(texts, model_tokenizer.from_folder(folder), 77, pad=0)
        images = ArrayItems([cache.array])
        work = Work(
            folder, photos, texts, [], args.batch, EPOCHS * -(-args.photos // args.batch), 1e-3,
            args.image_size, "fp32", 0, cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        mine = Ours(work, images, tokens, 0)
        runs = [train(mine, workers) for workers in args.workers]
    report(args, cores, rates, runs)
    if args.out:
        args.out.write_text(json.dumps({"shares": shares, "runs": runs}, indent=1))
    return 0


def report(
    args: argparse.Namespace, cores: int, rates: dict[str, list[float]], runs: list[dict[str, Any]]
) -> None:
    """What was measured, as Markdown: medians over the rounds, of ratios within a round."""
    print(f"{args.photos} JPEGs of 640 x 480 -> {args.image_size} px, batch {args.batch}\n")
    print("| decoding and resizing | pictures/s | of cores x one core |")
    print("|---|---:|---:|")
    for name, medians in rates.items():
        shares = [a / (cores * b) for a, b in zip(medians, rates["one core"], strict=True)]
        print(f"| {name} | {median(medians):.0f} | {median(shares):.2f} |")
    print()
    print("| loader threads | samples/s | data_wait | sum of PSS after epochs 1 to 5 |")
    print("|---:|---:|---:|---|")
    for run in runs:
        memory = " · ".join(f"{size / 2**20:.0f}" for size in run["pss"])
        print(f"| {run['num_workers']} | {run['samples_per_second']:.1f} | "
              f"{run['data_wait_share']:.2%} | {memory} MiB |")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
