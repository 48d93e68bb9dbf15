"""The memory forecast beside what a real step allocates: one line a shape, and the time it takes.

python benchmarks/fit.py [ENGINE …]           on the CPU: the shapes of tests/engine/test_fit_*.py
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

Of = Callable[[Any, Path], int]
Table = tuple[Sequence[Any], Of, Of]
"""Shapes; bytes that are forecast and measured of one, with a folder for its model."""


def vqa(*, gpu: bool) -> Table:
    from engines.vqa import fit
    from tests.engine import vqa_step

    def forecast(shape: vqa_step.Shape, _: Path) -> int:
        need = fit.forecast(shape.want(), shape.config(), "benchmark")
        return sum(need.phases["train" if shape.trains else "predict"].values())

    tests = importlib.import_module(f"tests.engine.test_fit_{'gpu' if gpu else 'ledger'}")
    return tests.SHAPES, forecast, vqa_step.measured_on_gpu if gpu else vqa_step.measured


def captioning(*, gpu: bool) -> Table:
    from engines.captioning import fit
    from tests.engine import captioning_step, test_fit_captioning

    def pair(shape: captioning_step.Shape, folder: Path) -> Any:
        return captioning_step.written(shape, folder)

    def forecast(shape: captioning_step.Shape, folder: Path) -> int:
        suffix = "mp4" if shape.frames > 1 else "png"
        read = test_fit_captioning.subset(folder / "s", suffix, [["a word"]])
        need = fit.forecast(shape.want(read), shape.params, pair(shape, folder))
        return sum(need.phases["train" if shape.trains else "predict"].values())

    tests = importlib.import_module(f"tests.engine.test_fit_captioning{'_gpu' if gpu else ''}")
    step = captioning_step.measured_on_gpu if gpu else captioning_step.measured
    return tests.SHAPES, forecast, lambda shape, folder: step(shape, pair(shape, folder))


def retrieval(*, gpu: bool) -> Table:
    from engines.retrieval import fit
    from tests.engine import retrieval_step

    def forecast(shape: retrieval_step.Shape, folder: Path) -> int:
        return retrieval_step.said(fit.rehearse(shape.want(folder)), shape)

    tests = importlib.import_module(f"tests.engine.test_fit_retrieval{'_gpu' if gpu else ''}")
    step = retrieval_step.measured_on_gpu if gpu else retrieval_step.measured
    return tests.SHAPES, forecast, step


def main() -> None:
    known = {"retrieval": retrieval, "captioning": captioning, "vqa": vqa}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=", ".join(known))
    parser.add_argument("--gpu", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    print("| engine | shape | forecast | measured | forecast / measured | seconds to forecast |")
    print("|---|---|---:|---:|---:|---:|")
    for engine in asked.engines or known:
        shapes, forecast, measured = known[engine](gpu=asked.gpu)
        for shape in shapes:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                said = forecast(shape, Path(folder))
                took = time.perf_counter() - began
                real = measured(shape, Path(folder))
            sizes = f"{said / 2**20:,.1f} MiB | {real / 2**20:,.1f} MiB"
            print(f"| {engine} | {shape.name} | {sizes} | {said / real:.3f} | {took:.1f} |")


if __name__ == "__main__":
    main()
