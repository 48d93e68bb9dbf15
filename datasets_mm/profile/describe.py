"""What is in this subset, or in this file? `python -m datasets_mm.profile.describe TARGET`.

Speaks JSON lines on stdout: progress, then one `done` with the profile or one `failed`. A target is
a subset by name, a file of JSON lines, or a Parquet file in M2KR's layout. Profiles are cached by
the content's fingerprint, so that a screen shows a known subset at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets_mm.child_messages import percent_speaker, speak
from datasets_mm.profile import duplicate_passages, token_lengths
from datasets_mm.profile.field_counts import Tally
from datasets_mm.profile.parallel_scan import Found, Options, ScanError, scan
from datasets_mm.profile.profile import PassageProfile, Profile, TokenProfile
from datasets_mm.profile.target import Target, TargetError, resolve
from datasets_mm.recipes.recipe import RecipeError
from datasets_mm.sources.fingerprint import SourceError

REVISION = 4
"""Raised when an equal file gives another profile: older cached ones are then not read."""

Say = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Asked:
    """What a person wants to know, and where to look."""

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


def describe(asked: Asked, say: Say) -> Profile:
    """The profile of a target, from the cache where it is known.

    Raises:
        TargetError, RecipeError, SourceError, ScanError, OSError: why not, in one sentence.
    """
    target = resolve(asked.target, asked.cache_root, asked.data_root, asked.image_root, say)
    path = _cached(asked, target)
    if not asked.fresh and (known := _read(path)):
        return known
    made = _profile(asked, target, say)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".tmp-{os.getpid()}")
    draft.write_text(made.model_dump_json(), encoding="utf-8")
    draft.replace(path)
    return made


def _cached(asked: Asked, target: Target) -> Path:
    """Where the profile is kept: by content and by all that was asked."""
    tokenizer = asked.tokenizer or token_lengths.measure().name
    wanted = [REVISION, target.fingerprint, str(target.images), str(tokenizer), asked.context]
    wanted += ["exact"] if asked.exact else [asked.sample, asked.seed]
    mark = hashlib.blake2b(json.dumps(wanted).encode(), digest_size=12).hexdigest()
    return asked.cache_root / "profiles" / f"{mark}.json"


def _read(path: Path) -> Profile | None:
    try:
        return Profile.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _profile(asked: Asked, target: Target, say: Say) -> Profile:
    began = time.monotonic()
    measure = token_lengths.measure(asked.tokenizer)
    total, done = target.source.total(), 0
    options = Options(
        measure=measure if asked.exact or total <= target.small else None,
        sample=asked.sample,
        seed=asked.seed,
        images=target.images,
        form=target.form,
        opened=None if asked.exact else Options.opened,
    )

    def tick(more: int) -> None:
        nonlocal done
        done += more
        say(done, total, target.unit)

    workers = target.workers or asked.workers or min(8, os.cpu_count() or 1)
    found = scan(target.source, options, workers, tick)
    counted = _tokens(found, measure, asked)
    pictures = found.pictures.profile(say) if found.pictures else None
    made = _counts(found, target)
    return made.model_copy(
        update={
            "tokens": counted,
            "pictures": pictures,
            "seconds": time.monotonic() - began,
            "rss_peak_bytes": found.rss_peak_bytes,
        }
    )


def _tokens(found: Found, measure: token_lengths.Measure, asked: Asked) -> TokenProfile:
    if found.tokens is not None:
        return found.tokens.profile(measure, asked.context, None)
    count = token_lengths.TokenCount()
    drawn = found.sample
    count.add(measure, [one.query for one in drawn], [[one.passage] for one in drawn])
    whole = len(drawn) >= found.tally.records
    return count.profile(measure, asked.context, None if whole and _single(found) else asked.seed)


def _single(found: Found) -> bool:
    """A sample of all records is a full count where no record has several positives to draw of."""
    return all(count < 2 for count in found.tally.candidates)


def _counts(found: Found, target: Target) -> Profile:
    tally = found.tally
    unread = sum(n for reason, n in found.refused.items() if reason not in tally.reasons)
    known = target.profile()
    examples = {
        reason: tuple(f"{target.where} {n}" for n in found.line_numbers(reason))
        for reason in sorted(found.named)
    }
    return known.model_copy(
        update={
            "noted": {**known.noted, **dict(tally.oddities.most_common())},
            "lines": tally.records + unread,
            "records": tally.records,
            "refused": dict(found.refused.most_common()),
            "examples": examples,
            "fields": tally.profiles(),
            "other_fields": dict(tally.others.most_common()),
            "candidates": dict(sorted(tally.candidates.items())),
            "questions": dict(tally.questions.most_common()),
            "repeated_data_ids": len(tally.data_ids) - duplicate_passages.distinct(tally.data_ids),
            "choices": tally.choices(),
            "passages": _passages(tally) if target.form == "passages" else PassageProfile(),
        }
    )


def _passages(tally: Tally) -> PassageProfile:
    pairs = duplicate_passages.distinct_pairs(tally.passage_ids, tally.passage_texts)
    references = sum(count * records for count, records in tally.candidates.items())
    return duplicate_passages.profile(*pairs, references, tally.records_with_repeats)


def main(arguments: Sequence[str] | None = None) -> int:
    """Describe one target, speaking JSON lines on stdout."""
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
    parser.add_argument("--sample", type=int, default=Asked.sample)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="scan even what is known")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the scan ends its processes
    try:
        found = describe(Asked(**vars(given)), percent_speaker())
    except KeyboardInterrupt:
        return 130
    except (TargetError, RecipeError, SourceError, ScanError) as error:
        speak(kind="failed", error=str(error))
        return 1
    except OSError as error:
        speak(kind="failed", error=f"{error.filename or given.target}: {error.strerror or error}")
        return 1
    speak(kind="done", profile=found.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
