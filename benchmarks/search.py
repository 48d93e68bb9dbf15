"""Exact top-k against the plain matrix product of the same size, in interleaved rounds.

Contenders of one round, each over all queries and passages: `matmul` (one product, the whole score
matrix in memory), `chunked` (the product in the blocks of our search, scores thrown away), our
search at every depth asked for, and with --naive `torch.topk` of each of those blocks (which a
merge would have to follow). Ratios are medians over rounds of the ratio within a round, so that a
slower machine moves both sides.

    python benchmarks/search.py [--rounds 7] [--queries 5046] [--passages 114810] [--width 512]
        [--depths 100,500] [--threads 2] [--device cpu] [--corpus-dtype fp32] [--naive]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from engines.retrieval.index import exact

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def vectors(rows: int, width: int, seed: int, device: str) -> Tensor:
    """Unit vectors in 64 loose clusters, as encoders make them: no two corpora parts are alike."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(64, width, generator=torch.Generator().manual_seed(0))
    near = torch.randint(64, (rows,), generator=generator).sort().values
    drawn = centres[near] + torch.randn(rows, width, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=1).to(device)


def blocks(queries: Tensor, corpus: Tensor, use: Callable[[Tensor], object]) -> None:
    """The products of the search, block by block."""
    kind = queries.device.type
    for chunk in torch.split(corpus, exact.PASSAGES_AT_ONCE[kind]):
        for part in torch.split(queries, exact.QUERIES_AT_ONCE[kind]):
            use(exact.inner_products(part, chunk))


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall-clock of one call, the device waited for."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--queries", type=int, default=5046)
    parser.add_argument("--passages", type=int, default=114_810)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depths", default="100,500")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--corpus-dtype", default="fp32", choices=tuple(DTYPES))
    parser.add_argument("--naive", action="store_true", help="also time torch.topk of each block")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    queries = vectors(options.queries, options.width, 1, options.device)
    corpus = vectors(options.passages, options.width, 2, options.device).to(
        DTYPES[options.corpus_dtype]
    )
    depths = [int(depth) for depth in options.depths.split(",")]
    work: dict[str, Callable[[], object]] = {
        "matmul": lambda: exact.inner_products(queries, corpus),
        "chunked": lambda: blocks(queries, corpus, lambda _: None),
    }
    for depth in depths:
        work[f"top {depth}"] = lambda depth=depth: exact.top_k(queries, corpus, depth)
        if options.naive:
            work[f"naive {depth}"] = lambda depth=depth: blocks(
                queries, corpus, lambda scores: scores.topk(min(depth, scores.shape[1]))
            )
    report(work, options)


def report(work: dict[str, Callable[[], object]], options: argparse.Namespace) -> None:
    """Time the rounds and print a row a contender."""
    for warm in work.values():
        warm()
    timings: dict[str, list[float]] = {name: [] for name in work}
    for number in range(options.rounds):
        names = list(work)
        for name in names if number % 2 else names[::-1]:
            timings[name].append(seconds(work[name], options.device))
    print(
        f"{options.queries:,} queries x {options.passages:,} passages x {options.width}, "
        f"{options.device}, "
        f"corpus {options.corpus_dtype}, {options.threads} threads, {options.rounds} rounds"
    )
    print(f"{'':>12} {'median s':>9} {'range':>17} {'of matmul':>10} {'of chunked':>11}")
    for name, times in timings.items():
        of = [
            statistics.median(t / base for t, base in zip(times, timings[against], strict=True))
            for against in ("matmul", "chunked")
        ]
        spread = f"[{min(times):.3f}, {max(times):.3f}]"
        median = statistics.median(times)
        print(f"{name:>12} {median:>9.3f} {spread:>17} {of[0]:>10.3f} {of[1]:>11.3f}")


if __name__ == "__main__":
    main()
