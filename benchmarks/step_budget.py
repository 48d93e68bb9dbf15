"""Kernel launches, casts, synchronizations and copies of one training step, without a GPU.

    python -m benchmarks.step_budget [CASE ...] [--host] [--json FILE]

Counts are of the engine's own step on fake tensors at the true sizes (`step_count.py` says how).
`--host` adds the CPU time of a step at tiny widths as a ratio to a bare loop over the same model,
interleaved in one process. `tests/benchmarks/test_step_budget.py` holds the counts as upper bounds.

A further engine: one more function that returns a `Case`, in `CASES`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import numpy as np
import torch

from benchmarks import language_steps, weekly
from benchmarks.step_count import (
    PARTS,
    Case,
    Counts,
    Step,
    forward_on_cuda,
    whole_step,
)
from engines.emitter import Emitter, Stopped
from engines.protocol import RunSpec
from engines.retrieval import tasks
from engines.retrieval.context import Context
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.data.pairs import ItemInputs, ItemRows, PairBatch, TrainingPairs
from engines.retrieval.memory import model_from_config
from engines.retrieval.prepare import PreparedEncoder
from engines.torchkit.memory.fake_training_step import TrainingOptions
from engines.torchkit.modeling import adapter_copies
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import loop
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch

QUERY_TOKENS, PASSAGE_TOKENS = 44, 77
"""Of the longest query and passage of a batch: M2KR's lengths, as in `weekly`."""
PAIRS = 128
WORDS = 512
"""Vocabulary of thin models."""


# -- retrieval ---------------------------------------------------------------------------------


def retrieval_step(
    device: torch.device, *, thin: int = 1, image_size: int = 224, **settings: Any
) -> Step:
    """The engine's job for TinyCLIP-61M (widths divided by `thin`), and one micro-batch."""
    sizes = weekly.Sizes(image_size=image_size, thin=thin)
    params = weekly.settings(sizes, settings)
    model = weekly.make_model(params, thin)
    if thin > 1:  # or the optimizer would mostly be about unused rows
        clip = model.clip
        clip.text_model.embeddings.token_embedding = torch.nn.Embedding(WORDS, 512 // thin)
        clip.text_model.eos_token_id = WORDS - 1
    if device.type != "cpu":  # fake parameters cannot be moved, so they are made anew
        with device:
            model_from_config.materialize(model)
    precision = Precision(params.precision, device)
    entry = weekly.preset_entry()
    spec = RunSpec(suite="s", run_id="b", engine="retrieval", subset="s", model=entry.name,
                   cache_root="", params=params.model_dump(mode="json"))  # fmt: skip
    context = Context(spec, params, precision, Emitter(), Path(tempfile.gettempdir()), entry)
    texts, images, pool = items(params.image_size, WORDS if thin > 1 else weekly.END + 1)
    ready = PreparedEncoder(model=model, texts=texts, images=images, revision="", facts={})
    data: Any = SimpleNamespace(pairs=pool, subset=SimpleNamespace(fingerprint="random"))
    setup = tasks.set_up_training(context, data, ready)
    job = tasks.create_training_job(setup, data, ready)
    computing: Any = job.model if job.weight_copies is None else job.weight_copies.model
    computing.one_pass = thin == 1  # at true sizes a fake CPU stands for a GPU
    return Step(job, [pairs(params.batch, params.image_size)])


def items(side: int, words: int) -> tuple[TokenItems, ArrayItems, TrainingPairs]:
    """Distinct texts and pictures of a few pairs: queries first, then passages."""
    lengths = np.repeat([QUERY_TOKENS, PASSAGE_TOKENS], PAIRS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.random.default_rng(0).integers(1, words - 2, int(offsets[-1])).astype(np.int32)
    flat[offsets[1:] - 1] = words - 1
    pictures = np.zeros((2 * PAIRS, side, side, 3), np.uint8)
    rows = np.arange(PAIRS)
    queries, passages = ItemRows(rows, rows), ItemRows(rows + PAIRS, rows + PAIRS)
    pool = TrainingPairs(queries, passages, rows, np.arange(PAIRS + 1))
    return TokenItems(flat, offsets, pad=0), ArrayItems([pictures]), pool


def pairs(size: int, side: int) -> PairBatch:
    """A micro-batch in host memory with everything on both sides."""
    rows = torch.arange(size)

    def inputs(tokens: int) -> ItemInputs:
        pictures = torch.zeros(size, side, side, 3, dtype=torch.uint8)
        return ItemInputs(size, torch.zeros(size, tokens, dtype=torch.long), rows, pictures, rows)

    positive = torch.eye(size, dtype=torch.bool)
    return PairBatch(inputs(QUERY_TOKENS), inputs(PASSAGE_TOKENS), positive)


def retrieval(**settings: Any) -> Case:
    """The weekly preset."""
    return Case(
        "retrieval",
        "TinyCLIP-61M, batch 64, layers 3,7,11, bf16, 224 px, texts of 44 and 77 tokens",
        lambda device: retrieval_step(device, **settings),
        TrainingOptions(precision=settings.get("precision", "bf16"), quantize="none", lora_rank=0,
               gradient_checkpointing=False),
    )  # fmt: skip


def tower() -> Case:
    """VQA without kept features."""
    return language_steps.vqa_case(feature_cache=False)


CASES: Final[dict[str, Callable[[], Case]]] = {
    "retrieval": retrieval,
    "retrieval, autocast": partial(retrieval, mixed_precision="autocast"),
    "captioning": language_steps.captioning_case,
    "vqa": language_steps.vqa_case,
    "vqa-tower": tower,
}


# -- host time -------------------------------------------------------------------------------------


STEPS: Final = 6
"""Of a round."""


def retrieval_host_ratio() -> float:
    """`host_ratio` of retrieval, whose bare loop has a forward pass of its own."""
    step = retrieval_step(torch.device("cpu"), thin=8, batch=8, precision="fp32", image_size=32)
    return host_ratio(step.job, bare_loop(step.job))


def language_host_ratio(engine: str, precision: str) -> float:
    """`host_ratio` of captioning or VQA, whose bare loop has the engine's forward pass."""
    with tiny_job(engine, precision) as job:
        return host_ratio(job, plain_loop(job))


def host_ratio(
    job: loop.TrainingJob[Any], bare: Callable[[list[Any]], None], rounds: int = 8
) -> float:
    """CPU seconds of a step through `loop.train` over those of a bare loop: median of rounds.

    One thread: at these widths a second one computes nothing and waits for the first.
    """
    torch.set_num_threads(1)
    job.stop_at, job.checkpoint_root, ratios = STEPS, None, []
    batches = [batch.result() for batch in job.loader.batches(0, job.last_step)]
    watch, many, converts = stopwatch(torch.device("cpu")), 10**6, job.weight_copies is not None
    for _ in range(rounds + 1):
        if converts:
            job.weight_copies = adapter_copies.copy_adapters(job.model, job.precision.name)
        began = time.process_time()
        loop.train(job, StepTimer(watch, 0, many), TimingSummary(many, 0), Emitter())
        middle = time.process_time()
        if converts:
            adapter_copies.copy_adapters(job.model, "fp32")  # none
        restart = time.process_time()
        bare(batches)
        ratios.append((middle - began) / (time.process_time() - restart))
    return statistics.median(ratios[1:])


@contextmanager
def tiny_job(engine: str, precision: str) -> Iterator[loop.TrainingJob[Any]]:
    """The job that a run of the tests' tiny model trains, before its first step."""
    from tests.engines import engine_runs, tiny_captioning, tiny_vqa

    tiny: Any = {"captioning": tiny_captioning, "vqa": tiny_vqa}[engine]
    jobs: list[loop.TrainingJob[Any]] = []

    def keep(job: loop.TrainingJob[Any], *_: Any) -> None:
        jobs.append(job)
        raise Stopped

    with tempfile.TemporaryDirectory() as scratch, engine_runs.configured(Path(scratch)):
        tiny.write(Path(scratch))
        spec = tiny.spec(Path(scratch), settings={"precision": precision, "max_steps": STEPS})
        with mock.patch.object(loop, "train", keep), suppress(Stopped):
            tiny.go(spec, Path(scratch, "run"))
        yield jobs[0]


def plain_loop(job: loop.TrainingJob[Any]) -> Callable[[list[Any]], None]:
    """The loop of a tutorial over the job's forward pass and batches that are ready."""
    parameters = [p for p in job.model.parameters() if p.requires_grad]

    def run(batches: list[Any]) -> None:
        job.model.train()
        for batch in batches:
            with job.precision.autocast():
                loss = job.forward(job.transfer(batch)).loss
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            job.optimizer.step()
            job.optimizer.zero_grad(set_to_none=True)

    return run


def bare_loop(job: loop.TrainingJob[PairBatch]) -> Callable[[list[PairBatch]], None]:
    """The same model in the loop of a tutorial, over batches that are ready."""
    model: Any = job.model
    parameters = list(model.parameters())

    def run(batches: list[PairBatch]) -> None:
        model.train()
        for batch in batches:
            sides = []
            for side in (batch.queries, batch.passages):
                texts = model.clip.get_text_features(input_ids=side.texts).pooler_output
                pixels = model.pixel_normalizer(side.images)
                pictures = model.clip.get_image_features(
                    pixel_values=pixels, interpolate_pos_encoding=True
                ).pooler_output
                unit = torch.nn.functional.normalize
                sides.append(unit(unit(texts, dim=-1) + unit(pictures, dim=-1), dim=-1))
            logits = model.log_scale.exp() * sides[0] @ sides[1].T
            target = torch.arange(len(logits))
            cross = torch.nn.functional.cross_entropy
            ((cross(logits, target) + cross(logits.T, target)) / 2).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            job.optimizer.step()
            job.optimizer.zero_grad(set_to_none=True)

    return run


# -- report ------------------------------------------------------------------------------------


def totals(parts: dict[str, Counts]) -> dict[str, int]:
    """Numbers of a whole step."""
    names = ("kernels", "casts", "waits", "bytes_to_device")
    sums = {name: sum(getattr(counts, name) for counts in parts.values()) for name in names}
    return sums | {part: parts[part].kernels for part in PARTS[1:]}


def measure(case: Case) -> dict[str, int]:
    """Counts of a step; the bytes copied are those of the pass on fake CUDA tensors."""
    counts, cuda = totals(whole_step(case)), forward_on_cuda(case)
    counts["bytes_to_device"] = sum(c.bytes_to_device for c in cuda.values())
    counts["waits"] += sum(c.waits for c in cuda.values())
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--host", action="store_true", help="measure host time too")
    parser.add_argument("--names", type=int, default=0, help="show so many operations by name")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    print("| case | kernels | forward | backward | optimizer | casts | host waits | MB copied |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in args.cases:
        case = CASES[name]()
        counts = figures[name] = measure(case)
        print(f"| {name} | {counts['kernels']:,} | {counts['forward']:,} | "
              f"{counts['backward']:,} | {counts['optimizer']:,} | {counts['casts']:,} | "
              f"{counts['waits']} | {counts['bytes_to_device'] / 1e6:.1f} |")  # fmt: skip
        for part, part_counts in whole_step(case).items() if args.names else ():
            print(f"{part}: {dict(part_counts.by_name.most_common(args.names))}")
    ratios: dict[str, Callable[[], float]] = {
        "retrieval": retrieval_host_ratio,
        **{f"{engine}, {precision}": partial(language_host_ratio, engine, precision)
           for engine in ("captioning", "vqa") for precision in ("fp32", "bf16")},
    }  # fmt: skip
    for name, measure_ratio in ratios.items() if args.host else ():
        figures[f"host_ratio: {name}"] = ratio = measure_ratio()
        print(f"host time of a step, {name}: {ratio:.2f} of a bare loop's")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
