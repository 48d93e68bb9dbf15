"""How fast `workbench data describe` scans a file of InfoSeek's size, against plain loops.

    .venv/bin/python -m benchmarks.scan                    # 676,441 records, about 2.7 GB

Makes a file in the layout of aimagelab/ReT-M2KR (nine fields, at least 3 KiB a record, the weekly
report's shares of candidate passages, "NA" pictures, accents in a quarter of the passages),
describes it with the real command in a fresh process (first with the build of its table, then the
scan of the built table alone), and with what one would write in a notebook. File and table are
deleted at the end. Peak memory is the largest Σ RSS of all processes, sampled every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

RECORDS = 676_441
RECORD_BYTES = 3_072
POOL = 100_000
SHARES = ((1, 1, 0.16), (2, 3, 0.2976), (4, 10, 0.306), (11, 20, 0.2364))
"""Bounds and share of each bucket; 2-3 and 11+ as in the report for the original InfoSeek."""
STATED_NA = 0.0431
STARTS = {
    "What is the name of": 0.42, "Which country is home to": 0.2, "In which year was": 0.08,
    "Who designed": 0.1, "Where is": 0.08, "When was": 0.06, "How tall is": 0.04, "Name": 0.02,
}  # fmt: skip
INSTRUCTION = "Using the provided image, obtain documents that address the subsequent question: "


def make(path: Path, records: int) -> int:
    """Write the file; returns its bytes."""
    rng = random.Random(0)
    pools = {count: _pool(count, rng) for count in range(1, 21)}
    starts, weights = list(STARTS), list(STARTS.values())
    with path.open("wb", buffering=1 << 20) as file:
        for number in range(records):
            low, high, _ = rng.choices(SHARES, [s[2] for s in SHARES])[0]
            count = rng.randint(low, high)
            # The cube makes a few passages frequent, as popular entities are.
            pool = pools[count]
            drawn = [pool[int(len(pool) * rng.random() ** 3)] for _ in range(count)]
            shown = (
                '"NA"' if rng.random() < STATED_NA else f'"infoseek/wiki/{d[0]}.jpg"' for d in drawn
            )
            question = rng.choices(starts, weights)[0]
            file.write(
                b'{"answer": ["Answer %d", "answer"], "data_id": "Infoseek_train_%08d", '
                b'"dataset_id": "Infoseek", "image_path": "infoseek/oven_%08d.JPEG", '
                b'"instruction": "%s", "passage_id": [%s], "passage_image_path": [%s], '
                b'"passage_text": [%s], "question": "%s this thing?"}\n'
                % (
                    number % 5000, number, number, INSTRUCTION.encode(),
                    ", ".join(f'"WikiWeb_{d[0]}"' for d in drawn).encode(),
                    ", ".join(shown).encode(),
                    b", ".join(d[1] for d in drawn),
                    question.encode(),
                )
            )  # fmt: skip
    return path.stat().st_size


def _pool(count: int, rng: random.Random) -> list[tuple[str, bytes]]:
    """Passages that `count` of them fill a record with; (id, text as JSON)."""
    size = max(220, RECORD_BYTES // count)
    words = ["the", "of", "and", "river", "church", "species", "located", "century", "was", "built"]
    accents = ["Café", "Zürich", "1914–1918", "São", "naïve", "Łódź"]
    pool = []
    for number in range(POOL // 20):
        extra = accents if rng.random() < 0.25 else []
        text = f"title: T{count}.{number} content: "
        while len(text) < size:
            text += rng.choice(words + extra) + " "
        pool.append((f"{count}_{number}", json.dumps(text.rstrip(), ensure_ascii=False).encode()))
    return pool


class Measured(NamedTuple):
    """What a command and its children took."""

    seconds: float
    cpu_seconds: float
    """Says more than the wall clock where others use the machine too."""
    peak_mib: float
    stdout: str

    def line(self, name: str) -> str:
        """For the terminal."""
        return (
            f"{name:<22} {self.seconds:6.1f} s wall  {self.cpu_seconds:6.1f} s CPU  "
            f"{self.peak_mib:5.0f} MiB peak"
        )


def measured(command: list[str]) -> Measured:
    """Run a command to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        peak, process = 0, psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, sum(_rss(pid) for pid in [process, *_children(process)]))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        output.seek(0)
        return Measured(seconds, cpu, peak / 2**20, output.read())


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def plain(path: Path) -> dict[str, object]:
    """The report's figures as a notebook would find them: json and pandas, one process."""
    import pandas as pd

    wh = re.compile(r"\b(what|which|who|where|when|why|how)\b", re.IGNORECASE)
    rows = []
    passages: Counter[str] = Counter()
    with path.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            match = wh.search(record["question"])
            shown = record["passage_image_path"]
            rows.append(
                {
                    "candidates": len(record["passage_id"]),
                    "na": all(path == "NA" for path in shown),
                    "word": match[1].lower() if match else "other",
                    **{name: bool(record.get(name)) for name in ("question", "image_path")},
                }
            )
            passages.update(record["passage_id"])
    frame = pd.DataFrame(rows)
    buckets = pd.cut(frame["candidates"], [0, 1, 3, 10, 10_000]).value_counts(normalize=True)
    return {
        "rows": len(frame),
        "buckets": buckets.tolist(),
        "na": float(frame["na"].mean()),
        "words": frame["word"].value_counts(normalize=True).to_dict(),
        "passages": len(passages),
    }


def main() -> None:
    """Make, scan, compare, delete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--no-plain", action="store_true", help="leave the notebook's loop out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-plain", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_plain:
        print(json.dumps(plain(options.only_plain)))
        return
    with tempfile.TemporaryDirectory(prefix="scan-") as folder:
        path = Path(folder) / "infoseek_train.jsonl"
        size = make(path, options.records)
        each = size / options.records
        print(f"{options.records:,} records, {size / 1e9:.2f} GB, {each:,.0f} B each")
        print(_scan(path, Path(folder)).line("build and scan"))
        rounds, loops = [], []
        for _ in range(options.repeats):
            rounds.append(_scan(path, Path(folder)))
            print(rounds[-1].line("data describe"))
            if not options.no_plain:
                loops.append(_loop(path))
                print(loops[-1].line("json and pandas loop"))
        if loops:
            _compare(rounds, loops)
            print(loops[-1].stdout)


def _scan(path: Path, folder: Path) -> Measured:
    command = [sys.executable, "-m", "datasets_mm.profile.describe", str(path)]
    done = measured([*command, "--cache-root", str(folder / "cache"), "--fresh"])
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["kind"] == "done", last
    return done


def _loop(path: Path) -> Measured:
    return measured([sys.executable, "-m", "benchmarks.scan", "--only-plain", str(path)])


def _compare(rounds: list[Measured], loops: list[Measured]) -> None:
    """Ratios within a round, where the machine is the same; their median."""
    pairs = list(zip(rounds, loops, strict=True))
    wall = statistics.median(loop.seconds / done.seconds for done, loop in pairs)
    cpu = statistics.median(loop.cpu_seconds / done.cpu_seconds for done, loop in pairs)
    print(f"the loop takes {wall:.1f} × the wall clock, {cpu:.1f} × the CPU")


if __name__ == "__main__":
    main()
