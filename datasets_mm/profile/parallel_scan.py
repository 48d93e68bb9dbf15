"""One pass over all records with several processes: parts are handed out, counts are added up.

Processes are forked: they share the seed of Python's `hash`, by which passages are told apart
(64 bits: among 5 million passages two different ones fall together with a chance below 1e-6), and
start in milliseconds.
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

from datasets_mm.profile.field_counts import Tally
from datasets_mm.profile.image_checks import OPENED, PictureCount
from datasets_mm.profile.record_readers import Source
from datasets_mm.profile.reservoir_sample import Drawn, Sample
from datasets_mm.profile.token_lengths import Measure, TokenCount
from datasets_mm.recipes.recipe import Form

NAMED: Final = 5
"""Places that are named for each reason."""

Tick = Callable[[int], None]


class ScanError(Exception):
    """The scan cannot be finished; one sentence with the remedy."""


@dataclass(frozen=True)
class Options:
    """What is counted beside the records themselves."""

    measure: Measure | None = None
    """Set: every text is counted in tokens during the scan; else only the sample, afterwards."""
    sample: int = 4_000
    seed: int = 0
    images: Path | None = None
    opened: int | None = OPENED
    form: Form = "passages"


@dataclass
class Found:
    """What one process found, and after merging all of them."""

    tally: Tally
    sample: list[Drawn]
    tokens: TokenCount | None
    pictures: PictureCount | None
    refused: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Reason -> (part, line in part) of the first few."""
    lines: dict[int, int] = field(default_factory=dict)
    """Part -> lines that began in it."""
    blank: int = 0
    rss_peak_bytes: int = 0

    def refuse(self, part: int, number: int, reason: str) -> None:
        """A line that is no record, or a record that a build would leave out."""
        self.refused[reason] += 1
        self.name(part, number, reason)

    def name(self, part: int, number: int, reason: str) -> None:
        """Note a place, if it is one of the first."""
        named = self.named.setdefault(reason, [])
        if len(named) < NAMED:
            named.append((part, number))

    def merge(self, other: Found, sample: int) -> None:
        """Take over what another process found."""
        self.tally.merge(other.tally)
        self.sample = sorted([*self.sample, *other.sample])[:sample]
        if self.tokens and other.tokens:
            self.tokens.merge(other.tokens)
        if self.pictures and other.pictures:
            self.pictures.merge(other.pictures)
        self.refused.update(other.refused)
        for reason, named in other.named.items():
            self.named[reason] = sorted([*self.named.get(reason, []), *named])[:NAMED]
        self.lines |= other.lines
        self.rss_peak_bytes += other.rss_peak_bytes

    def line_numbers(self, reason: str) -> list[int]:
        """Numbers, from 1, of the first few lines that were refused for this reason."""
        before, total = {}, 0
        for part in sorted(self.lines):
            before[part] = total
            total += self.lines[part]
        return [before[part] + number for part, number in self.named.get(reason, [])]


def scan(source: Source, options: Options, workers: int, tick: Tick) -> Found:
    """All records of a source. `tick` hears how much more (bytes or rows) has been read.

    Raises:
        ScanError: a process died.
        OSError: the file cannot be read.
    """
    parts = source.parts()
    workers = max(1, min(workers, parts))
    if workers == 1:
        return _Worker(source, options).run(iter(range(parts)), tick)
    return _together(source, options, workers, tick)


class _Worker:
    """Reads parts until there are no more."""

    def __init__(self, source: Source, options: Options) -> None:
        self.source, self.options = source, options
        self.sample = Sample(options.sample, options.seed)
        self.found = Found(
            Tally(options.form),
            [],
            TokenCount() if options.measure else None,
            PictureCount(
                options.images, options.seed, options.opened, measured=options.form == "choices"
            )
            if options.images
            else None,
        )

    def run(self, parts: Any, tick: Tick) -> Found:
        """Read these parts."""
        for part in parts:
            self._read(part)
            lines, size = self.source.size(part)
            self.found.lines[part] = lines
            tick(size)
        self.found.sample = self.sample.finish()
        self.found.rss_peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return self.found

    def _read(self, part: int) -> None:
        found, sample = self.found, self.sample
        tally, pictures, measure = found.tally, found.pictures, self.options.measure
        queries: list[str] = []
        passages: list[list[str]] = []
        sample.begin(part)
        refuse = _refusing(found, part)
        for number, record in self.source.read(part, refuse):
            query, texts, reason = tally.add(record)
            if tally.gaps:
                for gap in tally.gaps:
                    found.name(part, number, gap)
                tally.gaps.clear()
            if reason:
                refuse(number, reason)
                continue
            if measure:
                queries.append(query)
                passages.append(texts)
            else:
                sample.offer(query, texts)
            if pictures:
                pictures.look(_paths(record))
        if measure and found.tokens:
            found.tokens.add(measure, queries, passages)


def _refusing(found: Found, part: int) -> Callable[[int, str], None]:
    return lambda number, reason: found.refuse(part, number, reason)


def _paths(record: dict[str, Any]) -> list[str]:
    """Paths of the record's pictures, "" among them."""
    from datasets_mm.adapters.m2kr_fields import PICTURES, LineError, Oddities

    try:
        return [p for name in sorted(PICTURES) for p in Oddities().elements(name, record.get(name))]
    except LineError:
        return []  # a build leaves the record out and says why


def _together(source: Source, options: Options, workers: int, tick: Tick) -> Found:
    context = multiprocessing.get_context("fork")
    following = context.Value("l", 0)
    pipes: list[Connection] = []
    children = []
    for _ in range(workers):
        ours, theirs = context.Pipe(duplex=False)
        # As daemons they end with this process, but for a kill -9: then their next word fails.
        child = context.Process(
            target=_child, args=(source, options, following, theirs), daemon=True
        )
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    try:
        found = _listen(pipes, options, tick)
    finally:
        for child in children:
            child.terminate()
            child.join()
    return found


def _listen(pipes: list[Connection], options: Options, tick: Tick) -> Found:
    result: Found | None = None
    while pipes:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)  # noqa: S101 - wait() gives back what it was given
            try:
                said = pipe.recv()
            except EOFError:
                raise ScanError(
                    "a process of the scan was killed, perhaps for memory; try --workers 1"
                ) from None
            if isinstance(said, Exception):
                raise said
            if isinstance(said, Found):
                pipes.remove(pipe)
                if result is None:
                    result = said
                else:
                    result.merge(said, options.sample)
            else:
                tick(said)
    assert result is not None  # noqa: S101 - there is at least one process
    return result


def _child(source: Source, options: Options, following: Any, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core is enough
    gc.disable()  # nothing here makes cycles, and looking for them takes a tenth of the time
    total = source.parts()

    def parts() -> Any:
        while True:
            with following.get_lock():
                part = following.value
                following.value += 1
            if part >= total:
                return
            yield part

    try:
        pipe.send(_Worker(source, options).run(parts(), pipe.send))
    except BrokenPipeError:
        return  # the parent was killed: there is nobody to tell
    except (OSError, ScanError) as error:
        pipe.send(error)
