"""Profile of a subset or a file: `python -m datasets_mm.profile.describe TARGET`.

Prints JSON lines on stdout: progress, then one `done` with the profile or one `failed`. A target is
a subset by name, a file of JSON lines, or a Parquet file in M2KR's layout. Profiles are cached by
the content's fingerprint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets_mm.child_messages import Progress, emit_message, percent_progress
from datasets_mm.profile import duplicate_passages, token_lengths
from datasets_mm.profile.field_counts import FieldCounts
from datasets_mm.profile.parallel_scan import ScanError, ScanOptions, ScanResult, scan
from datasets_mm.profile.profile import PassageProfile, Profile, TokenProfile
from datasets_mm.profile.target import Target, TargetError, resolve_target
from datasets_mm.recipes.recipe import RecipeError
from datasets_mm.sources.fingerprint import SourceError

REVISION = 4
"""Raised when an equal file gives another profile: older cached ones are then not read."""


@dataclass(frozen=True)
class DescribeOptions:
    """Options of `describe`."""

    target: str
    cache_root: Path
    data_root: Path | None = None
    image_root: str = ""
    tokenizer: Path | None = None
    context: int = token_lengths.CONTEXT
    exact: bool = False
    sample: int = 4_000
    seed: int = 0
    workers: int = 0
    """0: one for each core, up to eight."""
    fresh: bool = False


def describe(options: DescribeOptions, progress: Progress) -> Profile:
    """The profile of a target, from the cache where it is present.

    Raises:
        TargetError, RecipeError, SourceError, ScanError, OSError: why not, in one sentence.
    """
    target = resolve_target(
        options.target, options.cache_root, options.data_root, options.image_root, progress
    )
    path = _cache_path(options, target)
    if not options.fresh and (cached := _read_cached(path)):
        return cached
    profile = _compute_profile(options, target, progress)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".tmp-{os.getpid()}")
    draft.write_text(profile.model_dump_json(), encoding="utf-8")
    draft.replace(path)
    return profile


def _cache_path(options: DescribeOptions, target: Target) -> Path:
    """Path of the cached profile: by content and options."""
    tokenizer = options.tokenizer or token_lengths.load_counter().name
    key = [REVISION, target.fingerprint, str(target.images), str(tokenizer), options.context]
    key += ["exact"] if options.exact else [options.sample, options.seed]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=12).hexdigest()
    return options.cache_root / "profiles" / f"{digest}.json"


def _read_cached(path: Path) -> Profile | None:
    try:
        return Profile.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _compute_profile(options: DescribeOptions, target: Target, progress: Progress) -> Profile:
    start = time.monotonic()
    counter = token_lengths.load_counter(options.tokenizer)
    total, done = target.source.total(), 0
    scan_options = ScanOptions(
        measure=counter if options.exact or total <= target.exact_limit else None,
        sample=options.sample,
        seed=options.seed,
        images=target.images,
        form=target.form,
        opened=None if options.exact else ScanOptions.opened,
    )

    def tick(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total, target.unit)

    workers = target.workers or options.workers or min(8, os.cpu_count() or 1)
    result = scan(target.source, scan_options, workers, tick)
    tokens = _token_profile(result, counter, options)
    pictures = result.pictures.profile(progress) if result.pictures else None
    profile = _count_profile(result, target)
    return profile.model_copy(
        update={
            "tokens": tokens,
            "pictures": pictures,
            "seconds": time.monotonic() - start,
            "rss_peak_bytes": result.rss_peak_bytes,
        }
    )


def _token_profile(
    result: ScanResult, counter: token_lengths.TokenCounter, options: DescribeOptions
) -> TokenProfile:
    if result.tokens is not None:
        return result.tokens.profile(counter, options.context, None)
    count = token_lengths.TokenCount()
    sample = result.sample
    count.add(counter, [record.query for record in sample], [[record.passage] for record in sample])
    is_complete = len(sample) >= result.counts.records
    return count.profile(
        counter,
        options.context,
        None if is_complete and _has_single_positives(result) else options.seed,
    )


def _has_single_positives(result: ScanResult) -> bool:
    """Whether no record has several positives: then a sample of all records is a full count."""
    return all(count < 2 for count in result.counts.candidates)


def _count_profile(result: ScanResult, target: Target) -> Profile:
    counts = result.counts
    unreadable = sum(n for reason, n in result.refused.items() if reason not in counts.reasons)
    base = target.profile()
    examples = {
        reason: tuple(f"{target.row_label} {n}" for n in result.line_numbers(reason))
        for reason in sorted(result.positions)
    }
    return base.model_copy(
        update={
            "noted": {**base.noted, **dict(counts.oddities.most_common())},
            "lines": counts.records + unreadable,
            "records": counts.records,
            "refused": dict(result.refused.most_common()),
            "examples": examples,
            "fields": counts.profiles(),
            "other_fields": dict(counts.others.most_common()),
            "candidates": dict(sorted(counts.candidates.items())),
            "questions": dict(counts.questions.most_common()),
            "repeated_data_ids": len(counts.data_ids)
            - duplicate_passages.count_distinct(counts.data_ids),
            "choices": counts.choices(),
            "passages": _passage_profile(counts) if target.form == "passages" else PassageProfile(),
        }
    )


def _passage_profile(counts: FieldCounts) -> PassageProfile:
    pairs = duplicate_passages.distinct_pairs(counts.passage_ids, counts.passage_texts)
    references = sum(count * records for count, records in counts.candidates.items())
    return duplicate_passages.passage_profile(*pairs, references, counts.records_with_repeats)


def main(arguments: Sequence[str] | None = None) -> int:
    """Describe one target and print JSON lines on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.profile.describe", description=__doc__
    )
    parser.add_argument("target")
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--image-root", default="")
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer.json")
    parser.add_argument("--context", type=int, default=token_lengths.CONTEXT)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--sample", type=int, default=DescribeOptions.sample)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="scan even what is known")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the scan ends its processes
    try:
        profile = describe(DescribeOptions(**vars(options)), percent_progress())
    except KeyboardInterrupt:
        return 130
    except (TargetError, RecipeError, SourceError, ScanError) as error:
        emit_message(kind="failed", error=str(error))
        return 1
    except OSError as error:
        emit_message(
            kind="failed", error=f"{error.filename or options.target}: {error.strerror or error}"
        )
        return 1
    emit_message(kind="done", profile=profile.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
