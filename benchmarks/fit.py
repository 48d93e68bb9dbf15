"""The memory forecast beside what a real step allocates: one line a shape, and the time it takes.

python benchmarks/fit.py            on the CPU: the shapes of tests/engine/test_fit_ledger.py
python benchmarks/fit.py --gpu      with a GPU: a 3B's sizes with random weights in NF4
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    import torch

    from engines.vqa import fit
    from tests.engine import vqa_step

    torch.set_num_threads(1)
    if asked.gpu:
        from tests.engine.test_fit_gpu import SHAPES
    else:
        from tests.engine.test_fit_ledger import SHAPES
    measured = vqa_step.measured_on_gpu if asked.gpu else vqa_step.measured
    print("| shape | forecast | measured | forecast / measured | seconds to forecast |")
    print("|---|---:|---:|---:|---:|")
    for shape in SHAPES:
        began = time.perf_counter()
        need = fit.forecast(shape.want(), shape.config(), "benchmark")
        took = time.perf_counter() - began
        said = sum(need.phases["train" if shape.trains else "predict"].values())
        with tempfile.TemporaryDirectory() as folder:
            real = measured(shape, Path(folder))
        sizes = f"{said / 2**20:,.1f} MiB | {real / 2**20:,.1f} MiB"
        print(f"| {shape.name} | {sizes} | {said / real:.3f} | {took:.1f} |", flush=True)


if __name__ == "__main__":
    main()
