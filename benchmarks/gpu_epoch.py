"""The weekly report's largest epoch: what it costs here, and what each setting is worth.

    python -m benchmarks.gpu_epoch --folder /disk/with/55/GB
    python -m benchmarks.gpu_epoch --pairs 30000 --set compile=true --set pin_memory=true

Writes an image cache of the epoch's size (random pixels, random tokens of M2KR's lengths; no
network and no data needed), then:
  epoch     339,137 pairs with text and image on both sides, as the preset weekly-m2kr trains them;
            `--set` changes its settings
  device    the same steps over batches that already lie on the device
  switches  step time with each speed setting alone, over batches on the device

Without a GPU it runs on the CPU; tests do so at a thousandth of the size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import weekly
from workbench.cli import set_options


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--pairs", type=int, default=weekly.OVEN)
    add("--passages", type=int, default=weekly.PASSAGES)
    add("--image-size", type=int, default=224)
    add("--thin", type=int, default=1, help="divide the widths by this (tests)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the preset")
    add("--steps", type=int, default=200, help="steps of each measurement besides the epoch")
    add("--skip", nargs="*", default=[], choices=("epoch", "device", "switches"))
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the cache is made")
    add("--out", type=Path, default=None, help="write all figures as JSON")
    return parser.parse_args()


def measure(args: argparse.Namespace, bench: weekly.Bench) -> dict[str, Any]:
    """All that was not skipped."""
    changes = set_options.parse_settings(args.set)
    figures: dict[str, Any] = {"settings": weekly.settings(bench.sizes, changes).model_dump()}
    if "epoch" not in args.skip:
        figures["epoch"] = bench.train(changes)
    if "device" not in args.skip:
        figures["device_step"] = statistics.median(bench.step_seconds(changes, args.steps))
    if "switches" not in args.skip:
        figures["switches"] = {}
        for name, switch in weekly.speed_switches().items():
            if bench.device.type == "cpu" and switch:
                continue  # none of them is meant for a CPU
            seconds = bench.step_seconds(changes | switch, args.steps)
            figures["switches"][name] = statistics.median(seconds)
    return figures


def main() -> int:
    args = parse()
    sizes = weekly.Sizes(args.pairs, args.passages, args.image_size, args.thin)
    args.folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(args.folder).free < sizes.cache_bytes * 1.05:
        print(f"{args.folder} lacks {sizes.cache_bytes / 2**30:.1f} GiB for the image cache; give "
              "another --folder or fewer --pairs", file=sys.stderr)  # fmt: skip
        return 2
    with tempfile.TemporaryDirectory(prefix="gpu-epoch-", dir=args.folder) as scratch:
        array, seconds = weekly.make_images(Path(scratch, "rows.u8"), sizes)
        bench = weekly.Bench(sizes, array, Path(scratch))
        figures: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
            "torch": torch.__version__,
            "cache": {"rows": sizes.rows, "bytes": sizes.cache_bytes, "seconds": seconds},
        }
        figures |= measure(args, bench)
    report(figures, compared=args.pairs == weekly.OVEN)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1))
    return 0


def report(figures: dict[str, Any], *, compared: bool) -> None:
    """What was measured, as Markdown."""
    cache = figures["cache"]
    print(f"{figures['device']}, torch {figures['torch']}; image cache of {cache['rows']:,} rows, "
          f"{cache['bytes'] / 2**30:.1f} GiB, written in {cache['seconds']:.1f} s\n")  # fmt: skip
    epoch = figures.get("epoch")
    if epoch:
        report_epoch(epoch, compared=compared)
    if "device_step" in figures:
        step = figures["device_step"]
        ratio = f"; the epoch's step is {epoch['step_median'] / step:.3f} of it" if epoch else ""
        print(f"step over batches on the device: {step * 1e3:.2f} ms{ratio}")
    if switches := figures.get("switches"):
        print("\n| setting alone | step | of the preset |\n|---|---:|---:|")
        for name, step in switches.items():
            print(f"| {name} | {step * 1e3:.2f} ms | {step / switches['preset']:.2f} |")


def report_epoch(epoch: dict[str, Any], *, compared: bool) -> None:
    """The lines about the epoch."""
    beside = f" (the report's: {weekly.REPORT_SECONDS:.2f} s, whole process)" if compared else ""
    print(f"epoch: {epoch['pairs']:,} pairs, {epoch['steps']:,} steps: "
          f"**{epoch['seconds']:.2f} s**{beside}")  # fmt: skip
    print(f"step median {epoch['step_median'] * 1e3:.2f} ms, p95 {epoch['step_p95'] * 1e3:.2f} ms, "
          f"last {epoch['last_step'] * 1e3:.2f} ms; data_wait {epoch['data_wait_share']:.2%}; "
          f"{epoch['samples_per_second']:,.0f} samples/s")  # fmt: skip
    for name in ("vram_allocated", "vram_reserved"):
        size = epoch[name]
        print(f"{name} peak: {'n/a (no GPU)' if size is None else f'{size / 2**30:.2f} GiB'}")


if __name__ == "__main__":
    sys.exit(main())
