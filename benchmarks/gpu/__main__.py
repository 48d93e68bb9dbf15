"""Command line: `python -m benchmarks.gpu [--out FOLDER] [--only STEP …] [--small]`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.journal import Journal
from benchmarks.gpu.runner import Runner, Setup
from benchmarks.gpu.steps import STEPS


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu.sh", description=__doc__)
    names = [step.name for step in STEPS]
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT") or "gpu-figures"),
        help="folder of figures.jsonl, figures.md and log.txt; default: $OUT, or ./gpu-figures",
    )
    add("--budget", type=float, default=600.0, help="seconds in all; what does not fit is skipped")
    add("--only", nargs="+", default=names, choices=names, metavar="STEP", help=", ".join(names))
    add("--skip", nargs="+", default=[], choices=names, metavar="STEP")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for 5 GB of scratch")
    add("--small", action="store_true", help="a thousandth of the size, for a CPU and for tests")
    add("--stretch", type=float, default=1.0, help="multiplies each step's seconds")
    args = parser.parse_args()
    chosen = [step for step in STEPS if step.name in args.only and step.name not in args.skip]
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-checks-", dir=args.folder) as scratch:
        setup = Setup(Path(scratch), args.out / "log.txt", small=args.small, stretch=args.stretch)
        with Journal(args.out) as journal:
            return Runner(chosen, journal, setup, args.budget).run()


if __name__ == "__main__":
    sys.exit(main())
