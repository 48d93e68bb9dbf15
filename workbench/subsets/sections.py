"""What a profile says, as rows: one figure for each profile, section by section.

Apart from the faces (`profile_tables.py`): terminal, Markdown, JSON lines and the screen all show
these rows, so that no two views of a subset can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from datasets_mm.profile.profile import Lengths, PictureProfile, Profile
from datasets_mm.recipes.recipe import Form
from workbench.subsets import schema_diff, vqa_sections
from workbench.subsets.section_types import (
    UNKNOWN,
    Figure,
    Find,
    Profiles,
    Section,
    number,
    part,
    row,
)

WORDS: Final = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how",
                "other", "none")  # fmt: skip
TEXTS: Final[dict[Form, tuple[tuple[str, str], ...]]] = {
    "passages": (("query", "query"), ("passage", "positive")),
    "captions": (("passage", "caption"),),
    "choices": (("query", "question"), ("passage", "option")),
}
"""Form of the records -> the texts that are counted (see TokenProfile), and what they are called.
Only passages are cut off at the context: captions are written by a model, not read."""
SHOWN_CANDIDATES: Final = 20
"""The histogram of candidate passages ends here with one open step."""


def sections(profiles: Profiles) -> list[Section]:
    """Everything that is known of one profile or two."""
    made = (
        _size, schema_diff.section, _filled, _candidates, vqa_sections.answers, vqa_sections.kinds,
        _questions, _lengths, _duplicates, _pictures, vqa_sections.sizes, vqa_sections.tokens,
        _left_out,
    )  # fmt: skip
    return [section for make in made if (section := make(profiles)).rows]


def _forms(profiles: Profiles) -> set[Form]:
    return {profile.form for profile in profiles}


def _size(profiles: Profiles) -> Section:
    rows = [row(profiles, "records", lambda p: number(p.records))]
    if any(p.expected_rows is not None for p in profiles):
        rows.append(row(profiles, "expected by the recipe", lambda p: number(p.expected_rows)))
    if any(p.corpus_rows is not None and p.form == "passages" for p in profiles):
        rows.append(row(profiles, "passages of the corpus", lambda p: number(p.corpus_rows)))
    rows.append(row(profiles, "size of the file", lambda p: _file_size(p.bytes)))
    return Section("size", tuple(rows))


def _file_size(bytes_: int) -> Figure:
    mib = bytes_ / 2**20
    return Figure(f"{mib:,.0f} MiB" if mib >= 10 else f"{mib * 1024:,.0f} KiB", mib)


def _filled(profiles: Profiles) -> Section:
    """Absent values; rows about "NA" and elements only where there are any."""
    rows = []
    names = [{field.name for field in profile.fields} for profile in profiles]
    for name in [f.name for f in profiles[0].fields if all(f.name in known for known in names)]:
        found = [p.field(name) for p in profiles]
        rows.append(row(profiles, f"{name}: no value", _absent(name)))
        if any(field.stated_na for field in found):
            rows.append(row(profiles, f'{name} = "NA"', _stated(name)))
        if any(field.elements_absent for field in found):
            rows.append(row(profiles, f"{name}: elements", _elements(name)))
    return Section(
        "absent values", tuple(rows), "Shares of records; of list elements where it says so."
    )


def _absent(name: str) -> Find:
    return lambda p: part(p.records - p.field(name).filled, p.records)


def _stated(name: str) -> Find:
    return lambda p: part(p.field(name).stated_na, p.records)


def _elements(name: str) -> Find:
    return lambda p: part(p.field(name).elements_absent, p.field(name).elements)


def _candidates(profiles: Profiles) -> Section:
    forms = _forms(profiles)
    title = f"{'captions' if forms == {'captions'} else 'candidate passages'} per record"
    if "choices" in forms:
        return Section(title, ())  # four options, always
    names = list(dict.fromkeys(name for p in profiles for name in p.buckets()))
    names.sort(key=lambda name: int(name.rstrip("+").partition("-")[0]))
    rows = [row(profiles, name, _bucket(name)) for name in names]
    rows.append(row(profiles, "mean", _mean))
    shown = _candidate_bars(profiles[0]) if len(profiles) == 1 else ()
    return Section(title, tuple(rows), bars=shown)


def _bucket(name: str) -> Find:
    return lambda p: part(p.buckets().get(name, 0), p.records)


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
    if _forms(profiles) == {"captions"}:
        return Section("first WH-word of the question", ())
    seen = [word for word in WORDS if any(p.questions.get(word) for p in profiles)]
    rows = [row(profiles, word, _word(word)) for word in seen]
    return Section("first WH-word of the question", tuple(rows))


def _word(word: str) -> Find:
    return lambda p: part(p.questions.get(word, 0), p.records)


def _lengths(profiles: Profiles) -> Section:
    if any(p.tokens is None for p in profiles):
        return Section("text lengths in tokens", ())
    forms = _forms(profiles)
    labels = TEXTS[forms.pop() if len(forms) == 1 else "passages"]
    rows = [
        row(profiles, f"{label}: {what}", _length(kind, find))
        for kind, label in labels
        for what, find in (
            ("mean", _mean_tokens),
            ("median", lambda found: number(found.median)),
            ("95th percentile", lambda found: number(found.p95)),
            ("longest", lambda found: number(found.longest)),
            *([("truncated", _truncated)] if labels is TEXTS["passages"] else []),
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
        one = dict(TEXTS[profile.form])["passage"]
        how = f"{n:,} records drawn with seed {tokens.seed}, one {one} of each; 95 % intervals"
    return f"{tokens.tokenizer}, context {tokens.context}; {how}"


def _length_bars(profile: Profile) -> tuple[tuple[str, int], ...]:
    tokens = profile.tokens
    if tokens is None or tokens.passage is None or profile.form == "choices":
        return ()  # options are shorter than the first step
    step, counts = tokens.step, tokens.passage.histogram
    labels = [f"{n * step + 1}-{(n + 1) * step}" for n in range(len(counts) - 1)]
    labels.append(f"{(len(counts) - 1) * step + 1}+")
    bars = tuple(zip(labels, counts, strict=True))
    if profile.form == "passages":
        return bars
    last = max((n for n, count in enumerate(counts) if count), default=0)
    return bars[: last + 1]  # captions are short: nothing comes after the longest


def _duplicates(profiles: Profiles) -> Section:
    finds: tuple[tuple[str, Find], ...] = (
        ("passages referred to", lambda p: number(p.passages.references)),
        ("distinct ids", lambda p: number(p.passages.distinct_ids)),
        ("ids repeating another's text", _of_ids("surplus_ids")),
        ("ids with several texts", _of_ids("ids_with_several_texts")),
        (
            "records naming one twice",
            lambda p: part(p.passages.records_with_repeats, p.records),
        ),
        ("records repeating a data_id", lambda p: part(p.repeated_data_ids, p.records)),
    )
    if "passages" not in _forms(profiles):
        finds = finds[-1:]
    return Section("duplicates", tuple(row(profiles, label, find) for label, find in finds))


def _of_ids(name: str) -> Find:
    return lambda p: part(getattr(p.passages, name), p.passages.distinct_ids)


def _pictures(profiles: Profiles) -> Section:
    found = [p.pictures for p in profiles if p.pictures]
    if not found:
        return Section("pictures", ())
    rows = [row(profiles, "distinct paths", _picture(lambda f: number(f.distinct)))]
    rows += [row(profiles, f"picture {r}", _lost(r)) for r in _reasons([f.lost for f in found])]
    rows.append(row(profiles, "opened", _picture(lambda f: part(f.opened, f.distinct))))
    unusable = _reasons([f.unusable for f in found])
    rows += [row(profiles, f"of these {reason}", _unusable(reason)) for reason in unusable]
    return Section("pictures", tuple(rows))


def _reasons(counts: Sequence[dict[str, int]]) -> list[str]:
    return list(dict.fromkeys(reason for one in counts for reason in one))


def _picture(find: Callable[[PictureProfile], Figure]) -> Find:
    return lambda p: find(p.pictures) if p.pictures else UNKNOWN


def _lost(reason: str) -> Find:
    return _picture(lambda found: part(found.lost.get(reason, 0), found.distinct))


def _unusable(reason: str) -> Find:
    return _picture(lambda found: part(found.unusable.get(reason, 0), found.opened))


def _left_out(profiles: Profiles) -> Section:
    reasons = _reasons([{**p.refused, **p.left_out} for p in profiles])
    rows = [
        row(profiles, reason + _places(profiles, reason), _refused(reason)) for reason in reasons
    ]
    return Section("left out", tuple(rows))


def _refused(reason: str) -> Find:
    return lambda p: part(p.refused.get(reason, 0) + p.left_out.get(reason, 0), p.lines)


def _places(profiles: Profiles, reason: str) -> str:
    """The first few places, of a single profile only: beside another they would be ambiguous."""
    if len(profiles) != 1:
        return ""
    named = {**profiles[0].left_out_examples, **profiles[0].examples}.get(reason, ())
    return f" ({', '.join(named)})" if named else ""
