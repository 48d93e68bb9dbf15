"""Memory estimates compared with what a real step allocates: one line a shape, with its seconds.

python benchmarks/fit.py [ENGINE …]           on the CPU, shapes of tests/engines/*/memory/
python benchmarks/fit.py [ENGINE …] --gpu     with a GPU: published sizes with random weights
"""

import argparse
import importlib
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.engines.random_models import ModelFolders

Of = Callable[[Any, ModelFolders], int]
Table = tuple[Sequence[Any], Of, Of]
"""Shapes; bytes that are estimated and measured of one, with folders for its models."""


def vqa(*, gpu: bool) -> Table:
    from engines.vqa.memory import estimate
    from tests.engines import vqa_step

    def forecast(shape: vqa_step.Shape, _: ModelFolders) -> int:
        need = estimate.estimate_model(shape.want(), shape.config(), "benchmark")
        return sum(need.phases["train" if shape.trains else "predict"].values())

    tests = importlib.import_module(
        f"tests.engines.vqa.memory.test_estimate{'_gpu' if gpu else ''}"
    )
    if gpu:
        return tests.SHAPES, forecast, vqa_step.measured_on_gpu
    return tests.SHAPES, forecast, lambda shape, folders: vqa_step.measured(shape, folders.new())


def captioning(*, gpu: bool) -> Table:
    from engines.captioning.memory import estimate
    from tests.engines import captioning_step
    from tests.engines.captioning.memory import test_estimate as test_fit_captioning

    def pair(shape: captioning_step.Shape, folders: ModelFolders) -> Any:
        return captioning_step.shared(shape, folders)

    def forecast(shape: captioning_step.Shape, folders: ModelFolders) -> int:
        suffix = "mp4" if shape.frames > 1 else "png"
        read = test_fit_captioning.subset(folders.new(), suffix, [["a word"]])
        need = estimate.estimate_model(shape.want(read), shape.params, pair(shape, folders))
        return sum(need.phases["train" if shape.trains else "predict"].values())

    tests = importlib.import_module(
        f"tests.engines.captioning.memory.test_estimate{'_gpu' if gpu else ''}"
    )
    step = captioning_step.measured_on_gpu if gpu else captioning_step.measured
    return tests.SHAPES, forecast, lambda shape, folders: step(shape, pair(shape, folders))


def retrieval(*, gpu: bool) -> Table:
    from engines.retrieval.memory import estimate
    from tests.engines import retrieval_step

    def entry_folder(shape: retrieval_step.Shape, folders: ModelFolders) -> Path:
        return folders.root / shape.family

    def forecast(shape: retrieval_step.Shape, folders: ModelFolders) -> int:
        return retrieval_step.said(
            estimate.estimate_memory(shape.want(entry_folder(shape, folders))), shape
        )

    tests = importlib.import_module(
        f"tests.engines.retrieval.memory.test_estimate{'_gpu' if gpu else ''}"
    )
    step = retrieval_step.measured_on_gpu if gpu else retrieval_step.measured
    return tests.SHAPES, forecast, lambda shape, folders: step(shape, entry_folder(shape, folders))


def main() -> None:
    forecasts = {"retrieval": retrieval, "captioning": captioning, "vqa": vqa}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=", ".join(forecasts))
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    print("| engine | shape | forecast | measured | forecast / measured | seconds to forecast |")
    print("|---|---|---:|---:|---:|---:|")
    for engine in options.engines or forecasts:
        shapes, forecast, measured = forecasts[engine](gpu=options.gpu)
        with ModelFolders(Path(tempfile.gettempdir())) as folders:
            for shape in shapes:
                began = time.perf_counter()
                estimate = forecast(shape, folders)
                took = time.perf_counter() - began
                real = measured(shape, folders)
                sizes = f"{estimate / 2**20:,.1f} MiB | {real / 2**20:,.1f} MiB"
                line = f"| {engine} | {shape.name} | {sizes} | {estimate / real:.3f} | {took:.1f} |"
                print(line, flush=True)


if __name__ == "__main__":
    main()
