"""One pass over all records with several processes: parts are handed out, counts are merged.

Processes are forked: they share the seed of Python's `hash`, by which passages are compared (64
bits: among 5 million passages two different ones collide with a probability below 1e-6), and start
in milliseconds.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from datasets_mm.profile.field_counts import FieldCounts
from datasets_mm.profile.image_checks import MAX_OPENED, PictureCount
from datasets_mm.profile.record_readers import RecordSource
from datasets_mm.profile.reservoir_sample import ReservoirSample, SampledRecord
from datasets_mm.profile.token_lengths import TokenCount, TokenCounter
from datasets_mm.recipes.recipe import Form

MAX_POSITIONS: Final = 5
"""Places that are named for each reason."""

OnRead = Callable[[int], None]


class ScanError(Exception):
    """The scan cannot be finished; one sentence with the remedy."""


@dataclass(frozen=True)
class ScanOptions:
    """Options of a scan."""

    measure: TokenCounter | None = None
    """Set: every text is counted in tokens during the scan; else only the sample, afterwards."""
    sample: int = 4_000
    seed: int = 0
    images: Path | None = None
    opened: int | None = MAX_OPENED
    form: Form = "passages"


@dataclass
class ScanResult:
    """Result of one process, and of all after merging."""

    counts: FieldCounts
    sample: list[SampledRecord]
    tokens: TokenCount | None
    pictures: PictureCount | None
    refused: Counter[str] = field(default_factory=Counter)
    positions: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Reason -> (part, line in part) of the first few."""
    lines: dict[int, int] = field(default_factory=dict)
    """Part -> lines that began in it."""
    rss_peak_bytes: int = 0

    def reject(self, part: int, number: int, reason: str) -> None:
        """Count a rejected line or record, and store its position."""
        self.refused[reason] += 1
        self.add_position(part, number, reason)

    def add_position(self, part: int, number: int, reason: str) -> None:
        """Store the position of a reason, if it is among the first."""
        positions = self.positions.setdefault(reason, [])
        if len(positions) < MAX_POSITIONS:
            positions.append((part, number))

    def merge(self, other: ScanResult, sample: int) -> None:
        """Add the results of another process."""
        self.counts.merge(other.counts)
        self.sample = sorted([*self.sample, *other.sample])[:sample]
        if self.tokens and other.tokens:
            self.tokens.merge(other.tokens)
        if self.pictures and other.pictures:
            self.pictures.merge(other.pictures)
        self.refused.update(other.refused)
        for reason, positions in other.positions.items():
            self.positions[reason] = sorted([*self.positions.get(reason, []), *positions])[
                :MAX_POSITIONS
            ]
        self.lines |= other.lines
        self.rss_peak_bytes += other.rss_peak_bytes

    def line_numbers(self, reason: str) -> list[int]:
        """Numbers, from 1, of the first few lines that were refused for this reason."""
        before, total = {}, 0
        for part in sorted(self.lines):
            before[part] = total
            total += self.lines[part]
        return [before[part] + number for part, number in self.positions.get(reason, [])]


def scan(source: RecordSource, options: ScanOptions, workers: int, tick: OnRead) -> ScanResult:
    """Scan all records of a source. `tick` is called with the bytes or rows read since.

    Raises:
        ScanError: a process died.
        OSError: the file cannot be read.
    """
    parts = source.parts()
    workers = max(1, min(workers, parts))
    if workers == 1:
        return _Worker(source, options).run(iter(range(parts)), tick)
    return _scan_parallel(source, options, workers, tick)


class _Worker:
    """Reads parts until there are no more."""

    def __init__(self, source: RecordSource, options: ScanOptions) -> None:
        self.source, self.options = source, options
        self.sample = ReservoirSample(options.sample, options.seed)
        self.result = ScanResult(
            FieldCounts(options.form),
            [],
            TokenCount() if options.measure else None,
            PictureCount(
                options.images, options.seed, options.opened, with_sizes=options.form == "choices"
            )
            if options.images
            else None,
        )

    def run(self, parts: Any, tick: OnRead) -> ScanResult:
        """Read these parts."""
        for part in parts:
            self._read(part)
            lines, size = self.source.size(part)
            self.result.lines[part] = lines
            tick(size)
        self.result.sample = self.sample.finish()
        self.result.rss_peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return self.result

    def _read(self, part: int) -> None:
        result, sample = self.result, self.sample
        counts, pictures, measure = result.counts, result.pictures, self.options.measure
        queries: list[str] = []
        passages: list[list[str]] = []
        sample.begin(part)
        reject = _reject_callback(result, part)
        for number, record in self.source.read(part, reject):
            query, texts, reason = counts.add(record)
            if counts.gaps:
                for gap in counts.gaps:
                    result.add_position(part, number, gap)
                counts.gaps.clear()
            if reason:
                reject(number, reason)
                continue
            if measure:
                queries.append(query)
                passages.append(texts)
            else:
                sample.offer(query, texts)
            if pictures:
                pictures.check_paths(_paths(record))
        if measure and result.tokens:
            result.tokens.add(measure, queries, passages)


def _reject_callback(result: ScanResult, part: int) -> Callable[[int, str], None]:
    return lambda number, reason: result.reject(part, number, reason)


def _paths(record: dict[str, Any]) -> list[str]:
    """Paths of the record's pictures, "" among them."""
    from datasets_mm.adapters.m2kr_fields import PICTURES, LineError, Oddities

    try:
        return [
            p for name in sorted(PICTURES) for p in Oddities().read_elements(name, record.get(name))
        ]
    except LineError:
        return []  # a build leaves the record out and says why


def _scan_parallel(
    source: RecordSource, options: ScanOptions, workers: int, tick: OnRead
) -> ScanResult:
    context = multiprocessing.get_context("fork")
    next_part = context.Value("l", 0)
    pipes: list[Connection] = []
    children = []
    for _ in range(workers):
        receiver, sender = context.Pipe(duplex=False)
        # As daemons they end with this process, but for a kill -9: then their next word fails.
        child = context.Process(
            target=_run_child, args=(source, options, next_part, sender), daemon=True
        )
        child.start()
        sender.close()
        pipes.append(receiver)
        children.append(child)
    try:
        result = _collect_results(pipes, options, tick)
    finally:
        for child in children:
            child.terminate()
            child.join()
    return result


def _collect_results(pipes: list[Connection], options: ScanOptions, tick: OnRead) -> ScanResult:
    result: ScanResult | None = None
    while pipes:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)  # noqa: S101 - wait() gives back what it was given
            try:
                message = pipe.recv()
            except EOFError:
                raise ScanError(
                    "a process of the scan was killed, perhaps for memory; try --workers 1"
                ) from None
            if isinstance(message, Exception):
                raise message
            if isinstance(message, ScanResult):
                pipes.remove(pipe)
                if result is None:
                    result = message
                else:
                    result.merge(message, options.sample)
            else:
                tick(message)
    assert result is not None  # noqa: S101 - there is at least one process
    return result


def _run_child(
    source: RecordSource, options: ScanOptions, next_part: Any, pipe: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core is enough
    gc.disable()  # nothing here makes cycles, and looking for them takes a tenth of the time
    total = source.parts()

    def parts() -> Any:
        while True:
            with next_part.get_lock():
                part = next_part.value
                next_part.value += 1
            if part >= total:
                return
            yield part

    try:
        pipe.send(_Worker(source, options).run(parts(), pipe.send))
    except BrokenPipeError:
        return  # the parent was killed
    except (OSError, ScanError) as error:
        pipe.send(error)
