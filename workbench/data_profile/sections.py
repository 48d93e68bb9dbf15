"""Sections of one or two profiles: rows with one figure for each profile.

Terminal, Markdown, JSON lines and the screen all render these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from datasets_mm.profile.profile import LengthProfile, PictureProfile, Profile
from datasets_mm.recipes.recipe import Form
from workbench.data_profile import schema_diff, vqa_sections
from workbench.data_profile.section_types import (
    UNKNOWN,
    FigureFunction,
    ProfileFigure,
    Profiles,
    ProfileSection,
    count_with_share,
    number,
    row,
)

WORDS: Final = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how",
                "other", "none")  # fmt: skip
TEXTS: Final[dict[Form, tuple[tuple[str, str], ...]]] = {
    "passages": (("query", "query"), ("passage", "positive")),
    "captions": (("passage", "caption"),),
    "choices": (("query", "question"), ("passage", "option")),
}
"""Form of the records -> (field of TokenProfile, label) of the texts that are counted. Only
passages are truncated at the context: captions are generated, not read."""
SHOWN_CANDIDATES: Final = 20
"""Last closed bin of the histogram of candidate passages."""


def build_sections(profiles: Profiles) -> list[ProfileSection]:
    """All non-empty sections of one profile or of two."""
    builders = (
        _size, schema_diff.schema_section, _absent_values, _candidates,
        vqa_sections.answer_section, vqa_sections.kind_section, _questions, _lengths, _duplicates,
        _pictures, vqa_sections.size_section, vqa_sections.token_section, _left_out,
    )  # fmt: skip
    return [section for build in builders if (section := build(profiles)).rows]


def _forms(profiles: Profiles) -> set[Form]:
    return {profile.form for profile in profiles}


def _size(profiles: Profiles) -> ProfileSection:
    rows = [row(profiles, "records", lambda p: number(p.records))]
    if any(p.expected_rows is not None for p in profiles):
        rows.append(row(profiles, "expected by the recipe", lambda p: number(p.expected_rows)))
    if any(p.corpus_rows is not None and p.form == "passages" for p in profiles):
        rows.append(row(profiles, "passages of the corpus", lambda p: number(p.corpus_rows)))
    rows.append(row(profiles, "size of the file", lambda p: _file_size(p.bytes)))
    return ProfileSection("size", tuple(rows))


def _file_size(bytes_: int) -> ProfileFigure:
    mib = bytes_ / 2**20
    return ProfileFigure(f"{mib:,.0f} MiB" if mib >= 10 else f"{mib * 1024:,.0f} KiB", mib)


def _absent_values(profiles: Profiles) -> ProfileSection:
    """Absent values; rows about "NA" and list elements only if there are any."""
    rows = []
    names = [{field.name for field in profile.fields} for profile in profiles]
    for name in [
        f.name for f in profiles[0].fields if all(f.name in field_names for field_names in names)
    ]:
        fields = [p.field(name) for p in profiles]
        rows.append(row(profiles, f"{name}: no value", _absent(name)))
        if any(field.stated_na for field in fields):
            rows.append(row(profiles, f'{name} = "NA"', _stated(name)))
        if any(field.elements_absent for field in fields):
            rows.append(row(profiles, f"{name}: elements", _elements(name)))
    return ProfileSection(
        "absent values", tuple(rows), "Shares of records; of list elements where it says so."
    )


def _absent(name: str) -> FigureFunction:
    return lambda p: count_with_share(p.records - p.field(name).filled, p.records)


def _stated(name: str) -> FigureFunction:
    return lambda p: count_with_share(p.field(name).stated_na, p.records)


def _elements(name: str) -> FigureFunction:
    return lambda p: count_with_share(p.field(name).elements_absent, p.field(name).elements)


def _candidates(profiles: Profiles) -> ProfileSection:
    forms = _forms(profiles)
    title = f"{'captions' if forms == {'captions'} else 'candidate passages'} per record"
    if "choices" in forms:
        return ProfileSection(title, ())  # four options, always
    names = list(dict.fromkeys(name for p in profiles for name in p.buckets()))
    names.sort(key=lambda name: int(name.rstrip("+").partition("-")[0]))
    rows = [row(profiles, name, _bucket(name)) for name in names]
    rows.append(row(profiles, "mean", _mean))
    shown = _candidate_bars(profiles[0]) if len(profiles) == 1 else ()
    return ProfileSection(title, tuple(rows), bars=shown)


def _bucket(name: str) -> FigureFunction:
    return lambda p: count_with_share(p.buckets().get(name, 0), p.kept)


def _mean(profile: Profile) -> ProfileFigure:
    named = sum(count * records for count, records in profile.candidates.items())
    mean = named / max(profile.kept, 1)
    return ProfileFigure(f"{mean:.2f}", mean)


def _candidate_bars(profile: Profile) -> tuple[tuple[str, int], ...]:
    top = min(max(profile.candidates, default=0), SHOWN_CANDIDATES)
    counts = [(str(n), profile.candidates.get(n, 0)) for n in range(1, top + 1)]
    more = sum(n for count, n in profile.candidates.items() if count > SHOWN_CANDIDATES)
    return tuple([*counts, (f"{SHOWN_CANDIDATES + 1}+", more)] if more else counts)


def _questions(profiles: Profiles) -> ProfileSection:
    if _forms(profiles) == {"captions"}:
        return ProfileSection("first WH-word of the question", ())
    words = [word for word in WORDS if any(p.questions.get(word) for p in profiles)]
    rows = [row(profiles, word, _word(word)) for word in words]
    return ProfileSection("first WH-word of the question", tuple(rows))


def _word(word: str) -> FigureFunction:
    return lambda p: count_with_share(p.questions.get(word, 0), p.kept)


def _lengths(profiles: Profiles) -> ProfileSection:
    if any(p.tokens is None for p in profiles):
        return ProfileSection("text lengths in tokens", ())
    forms = _forms(profiles)
    labels = TEXTS[forms.pop() if len(forms) == 1 else "passages"]
    rows = [
        row(profiles, f"{label}: {statistic}", _length(kind, find))
        for kind, label in labels
        for statistic, find in (
            ("mean", _mean_tokens),
            ("median", lambda lengths: number(lengths.median)),
            ("95th percentile", lambda lengths: number(lengths.p95)),
            ("longest", lambda lengths: number(lengths.longest)),
            *([("truncated", _truncated)] if labels is TEXTS["passages"] else []),
        )
    ]
    remark = "; ".join(dict.fromkeys(_how(p) for p in profiles))
    shown = _length_bars(profiles[0]) if len(profiles) == 1 else ()
    return ProfileSection("text lengths in tokens", tuple(rows), remark, shown)


def _length(kind: str, find: Callable[[LengthProfile], ProfileFigure]) -> FigureFunction:
    def figure(profile: Profile) -> ProfileFigure:
        tokens = profile.tokens
        lengths = tokens and (tokens.query if kind == "query" else tokens.passage)
        return find(lengths) if lengths else UNKNOWN

    return figure


def _mean_tokens(lengths: LengthProfile) -> ProfileFigure:
    if lengths.mean_low is None or lengths.mean_high is None:
        return ProfileFigure(f"{lengths.mean:.1f}", lengths.mean)
    text = f"{lengths.mean:.1f} [{lengths.mean_low:.1f}, {lengths.mean_high:.1f}]"
    return ProfileFigure(text, lengths.mean, None, lengths.mean_low, lengths.mean_high)


def _truncated(lengths: LengthProfile) -> ProfileFigure:
    text = f"{100 * lengths.truncated:.2f} %"
    low, high = lengths.truncated_low, lengths.truncated_high
    if low is not None and high is not None:
        text += f" [{100 * low:.2f}, {100 * high:.2f}]"
    return ProfileFigure(text, lengths.truncated, lengths.truncated, low, high)


def _how(profile: Profile) -> str:
    """The tokenizer, the context and the number of texts behind the lengths."""
    tokens = profile.tokens
    if tokens is None:
        return ""
    n = max((lengths.n for lengths in (tokens.query, tokens.passage) if lengths), default=0)
    how = "every text"
    if tokens.seed is not None:
        text = dict(TEXTS[profile.form])["passage"]
        how = f"{n:,} records drawn with seed {tokens.seed}, one {text} of each; 95 % intervals"
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


def _duplicates(profiles: Profiles) -> ProfileSection:
    finds: tuple[tuple[str, FigureFunction], ...] = (
        ("passages referred to", lambda p: number(p.passages.references)),
        ("distinct ids", lambda p: number(p.passages.distinct_ids)),
        ("ids repeating another's text", _of_ids("surplus_ids")),
        ("ids with several texts", _of_ids("ids_with_several_texts")),
        (
            "records naming one twice",
            lambda p: count_with_share(p.passages.records_with_repeats, p.kept),
        ),
        ("records repeating a data_id", lambda p: count_with_share(p.repeated_data_ids, p.kept)),
    )
    if "passages" not in _forms(profiles):
        finds = finds[-1:]
    return ProfileSection("duplicates", tuple(row(profiles, label, find) for label, find in finds))


def _of_ids(name: str) -> FigureFunction:
    return lambda p: count_with_share(getattr(p.passages, name), p.passages.distinct_ids)


def _pictures(profiles: Profiles) -> ProfileSection:
    pictures = [p.pictures for p in profiles if p.pictures]
    if not pictures:
        return ProfileSection("pictures", ())
    rows = [row(profiles, "distinct paths", _picture(lambda f: number(f.distinct)))]
    rows += [row(profiles, f"picture {r}", _lost(r)) for r in _reasons([f.lost for f in pictures])]
    rows.append(row(profiles, "opened", _picture(lambda f: count_with_share(f.opened, f.distinct))))
    unusable = _reasons([f.unusable for f in pictures])
    rows += [row(profiles, f"of these {reason}", _unusable(reason)) for reason in unusable]
    return ProfileSection("pictures", tuple(rows))


def _reasons(counts: Sequence[dict[str, int]]) -> list[str]:
    return list(dict.fromkeys(reason for table in counts for reason in table))


def _picture(find: Callable[[PictureProfile], ProfileFigure]) -> FigureFunction:
    return lambda p: find(p.pictures) if p.pictures else UNKNOWN


def _lost(reason: str) -> FigureFunction:
    return _picture(
        lambda pictures: count_with_share(pictures.lost.get(reason, 0), pictures.distinct)
    )


def _unusable(reason: str) -> FigureFunction:
    return _picture(
        lambda pictures: count_with_share(pictures.unusable.get(reason, 0), pictures.opened)
    )


def _left_out(profiles: Profiles) -> ProfileSection:
    reasons = _reasons([{**p.refused, **p.left_out} for p in profiles])
    rows = [
        row(profiles, reason + _examples(profiles, reason), _refused(reason)) for reason in reasons
    ]
    return ProfileSection("left out", tuple(rows))


def _refused(reason: str) -> FigureFunction:
    return lambda p: count_with_share(p.refused.get(reason, 0) + p.left_out.get(reason, 0), p.lines)


def _examples(profiles: Profiles, reason: str) -> str:
    """The first examples of a reason; only for a single profile, since two are ambiguous."""
    if len(profiles) != 1:
        return ""
    named = {**profiles[0].left_out_examples, **profiles[0].examples}.get(reason, ())
    return f" ({', '.join(named)})" if named else ""
