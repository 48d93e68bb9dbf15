"""What a profile says, as rows: one figure for each profile, section by section.

Apart from the faces (`profile_tables.py`): terminal, Markdown, JSON lines and the screen all show
these rows, so that no two views of a subset can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from datasets_mm.profile import Lengths, PictureProfile, Profile

WORDS: Final = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how",
                "other", "none")  # fmt: skip
SHOWN_CANDIDATES: Final = 20
"""The histogram of candidate passages ends here with one open step."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one subset. `share` of the subset's records (or texts), if it is one."""

    text: str
    value: float | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it is, and the figure of each profile."""

    label: str
    figures: tuple[Figure, ...]

    @property
    def difference(self) -> str:
        """Second against first: percentage points between shares, else the ratio."""
        if len(self.figures) != 2:
            return ""
        first, second = self.figures
        if first.share is not None and second.share is not None:
            return f"{100 * (second.share - first.share):+.2f}"
        if first.value and second.value is not None:
            return f"× {second.value / first.value:.3g}"
        return ""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together, a sentence about how they were found, and bars to look at."""

    title: str
    rows: tuple[Row, ...]
    remark: str = ""
    bars: tuple[tuple[str, int], ...] = ()
    """A histogram: label and count of each step."""


Profiles = Sequence[Profile]
Find = Callable[[Profile], Figure]
UNKNOWN: Final = Figure("n/a")


def sections(profiles: Profiles) -> list[Section]:
    """Everything that is known of one profile or two."""
    made = (
        _size, _filled, _candidates, _questions, _lengths, _duplicates, _pictures, _left_out,
    )  # fmt: skip
    return [section for make in made if (section := make(profiles)).rows]


def _row(profiles: Profiles, label: str, find: Find) -> Row:
    return Row(label, tuple(find(profile) for profile in profiles))


def _number(value: float | None, unit: str = "") -> Figure:
    return UNKNOWN if value is None else Figure(f"{value:,.0f}{unit}", value)


def _part(count: int, total: int) -> Figure:
    """A count and its share."""
    if not total:
        return Figure(f"{count:,}", count)
    return Figure(f"{count:,} ({100 * count / total:.2f} %)", count, count / total)


def _size(profiles: Profiles) -> Section:
    rows = [_row(profiles, "records", lambda p: _number(p.records))]
    if any(p.expected_rows is not None for p in profiles):
        rows.append(_row(profiles, "expected by the recipe", lambda p: _number(p.expected_rows)))
    if any(p.corpus_rows is not None for p in profiles):
        rows.append(_row(profiles, "passages of the corpus", lambda p: _number(p.corpus_rows)))
    rows.append(_row(profiles, "size of the file", lambda p: _number(p.bytes / 2**20, " MiB")))
    return Section("size", tuple(rows))


def _filled(profiles: Profiles) -> Section:
    """Absent values; rows about "NA" and elements only where there are any."""
    rows = []
    for name in [field.name for field in profiles[0].fields]:
        found = [p.field(name) for p in profiles]
        rows.append(_row(profiles, f"{name}: no value", _absent(name)))
        if any(field.stated_na for field in found):
            rows.append(_row(profiles, f'{name} = "NA"', _stated(name)))
        if any(field.elements_absent for field in found):
            rows.append(_row(profiles, f"{name}: elements", _elements(name)))
    return Section(
        "absent values", tuple(rows), "Shares of records; of list elements where it says so."
    )


def _absent(name: str) -> Find:
    return lambda p: _part(p.records - p.field(name).filled, p.records)


def _stated(name: str) -> Find:
    return lambda p: _part(p.field(name).stated_na, p.records)


def _elements(name: str) -> Find:
    return lambda p: _part(p.field(name).elements_absent, p.field(name).elements)


def _candidates(profiles: Profiles) -> Section:
    names = list(dict.fromkeys(name for p in profiles for name in p.buckets()))
    names.sort(key=lambda name: int(name.rstrip("+").partition("-")[0]))
    rows = [_row(profiles, name, _bucket(name)) for name in names]
    rows.append(_row(profiles, "mean", _mean))
    shown = _candidate_bars(profiles[0]) if len(profiles) == 1 else ()
    return Section("candidate passages a record", tuple(rows), bars=shown)


def _bucket(name: str) -> Find:
    return lambda p: _part(p.buckets().get(name, 0), p.records)


def _mean(profile: Profile) -> Figure:
    named = sum(count * records for count, records in profile.candidates.items())
    mean = named / max(profile.records, 1)
    return Figure(f"{mean:.2f}", mean)


def _candidate_bars(profile: Profile) -> tuple[tuple[str, int], ...]:
    top = min(max(profile.candidates, default=0), SHOWN_CANDIDATES)
    counts = [(str(n), profile.candidates.get(n, 0)) for n in range(1, top + 1)]
    more = sum(n for count, n in profile.candidates.items() if count > SHOWN_CANDIDATES)
    return tuple([*counts, (f"{SHOWN_CANDIDATES + 1}+", more)] if more else counts)


def _questions(profiles: Profiles) -> Section:
    seen = [word for word in WORDS if any(p.questions.get(word) for p in profiles)]
    rows = [_row(profiles, word, _word(word)) for word in seen]
    return Section("first WH-word of the question", tuple(rows))


def _word(word: str) -> Find:
    return lambda p: _part(p.questions.get(word, 0), p.records)


def _lengths(profiles: Profiles) -> Section:
    if any(p.tokens is None for p in profiles):
        return Section("text lengths in tokens", ())
    rows = [
        _row(profiles, f"{label}: {what}", _length(kind, find))
        for kind, label in (("query", "query"), ("passage", "positive"))
        for what, find in (
            ("mean", _mean_tokens),
            ("median", lambda found: _number(found.median)),
            ("95th percentile", lambda found: _number(found.p95)),
            ("longest", lambda found: _number(found.longest)),
            ("truncated", _truncated),
        )
    ]
    remark = "; ".join(dict.fromkeys(_how(p) for p in profiles))
    shown = _length_bars(profiles[0]) if len(profiles) == 1 else ()
    return Section("text lengths in tokens", tuple(rows), remark, shown)


def _length(kind: str, find: Callable[[Lengths], Figure]) -> Find:
    def figure(profile: Profile) -> Figure:
        tokens = profile.tokens
        found = tokens and (tokens.query if kind == "query" else tokens.passage)
        return find(found) if found else UNKNOWN

    return figure


def _mean_tokens(found: Lengths) -> Figure:
    if found.mean_low is None or found.mean_high is None:
        return Figure(f"{found.mean:.1f}", found.mean)
    text = f"{found.mean:.1f} [{found.mean_low:.1f}, {found.mean_high:.1f}]"
    return Figure(text, found.mean, None, found.mean_low, found.mean_high)


def _truncated(found: Lengths) -> Figure:
    text = f"{100 * found.truncated:.2f} %"
    low, high = found.truncated_low, found.truncated_high
    if low is not None and high is not None:
        text += f" [{100 * low:.2f}, {100 * high:.2f}]"
    return Figure(text, found.truncated, found.truncated, low, high)


def _how(profile: Profile) -> str:
    """By what tokenizer the lengths were found, and of how many texts."""
    tokens = profile.tokens
    if tokens is None:
        return ""
    n = max((found.n for found in (tokens.query, tokens.passage) if found), default=0)
    how = "every text"
    if tokens.seed is not None:
        how = f"{n:,} records drawn with seed {tokens.seed}, one positive of each; 95 % intervals"
    return f"{tokens.tokenizer}, context {tokens.context}; {how}"


def _length_bars(profile: Profile) -> tuple[tuple[str, int], ...]:
    tokens = profile.tokens
    if tokens is None or tokens.passage is None:
        return ()
    step, counts = tokens.step, tokens.passage.histogram
    labels = [f"{n * step + 1}-{(n + 1) * step}" for n in range(len(counts) - 1)]
    labels.append(f"{(len(counts) - 1) * step + 1}+")
    return tuple(zip(labels, counts, strict=True))


def _duplicates(profiles: Profiles) -> Section:
    finds: tuple[tuple[str, Find], ...] = (
        ("passages referred to", lambda p: _number(p.passages.references)),
        ("distinct ids", lambda p: _number(p.passages.distinct_ids)),
        ("ids repeating another's text", _of_ids("surplus_ids")),
        ("ids with several texts", _of_ids("ids_with_several_texts")),
        (
            "records naming one twice",
            lambda p: _part(p.passages.records_with_repeats, p.records),
        ),
        ("records repeating a data_id", lambda p: _part(p.repeated_data_ids, p.records)),
    )
    return Section("duplicates", tuple(_row(profiles, label, find) for label, find in finds))


def _of_ids(name: str) -> Find:
    return lambda p: _part(getattr(p.passages, name), p.passages.distinct_ids)


def _pictures(profiles: Profiles) -> Section:
    found = [p.pictures for p in profiles if p.pictures]
    if not found:
        return Section("pictures", ())
    rows = [_row(profiles, "distinct paths", _picture(lambda f: _number(f.distinct)))]
    rows += [_row(profiles, f"picture {r}", _lost(r)) for r in _reasons([f.lost for f in found])]
    rows.append(_row(profiles, "opened", _picture(lambda f: _part(f.opened, f.distinct))))
    unusable = _reasons([f.unusable for f in found])
    rows += [_row(profiles, f"of these {reason}", _unusable(reason)) for reason in unusable]
    return Section("pictures", tuple(rows))


def _reasons(counts: Sequence[dict[str, int]]) -> list[str]:
    return list(dict.fromkeys(reason for one in counts for reason in one))


def _picture(find: Callable[[PictureProfile], Figure]) -> Find:
    return lambda p: find(p.pictures) if p.pictures else UNKNOWN


def _lost(reason: str) -> Find:
    return _picture(lambda found: _part(found.lost.get(reason, 0), found.distinct))


def _unusable(reason: str) -> Find:
    return _picture(lambda found: _part(found.unusable.get(reason, 0), found.opened))


def _left_out(profiles: Profiles) -> Section:
    reasons = _reasons([{**p.refused, **p.left_out} for p in profiles])
    rows = [
        _row(profiles, reason + _places(profiles, reason), _refused(reason)) for reason in reasons
    ]
    return Section("left out", tuple(rows))


def _refused(reason: str) -> Find:
    return lambda p: _part(p.refused.get(reason, 0) + p.left_out.get(reason, 0), p.lines)


def _places(profiles: Profiles, reason: str) -> str:
    """The first few places, of a single profile only: beside another they would be ambiguous."""
    if len(profiles) != 1:
        return ""
    named = {**profiles[0].left_out_examples, **profiles[0].examples}.get(reason, ())
    return f" ({', '.join(named)})" if named else ""
