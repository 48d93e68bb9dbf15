"""Whether two files or subsets have one schema: the same fields, written with the same types.

Apart from `profile_rows`, whose sections hold figures: this one ends in a sentence.
"""

from __future__ import annotations

from typing import Final

from datasets_mm.profile.profile import FieldProfile, Profile
from workbench.subsets.section_types import Figure, Find, Profiles, Section, number, row

NO_VALUE: Final = frozenset({"null", "NaN", "empty list"})
"""Not types but ways of being absent, which have a section of their own."""

BUILT: Final = (
    "A built subset has the fields and types of its build, whatever its files had; for those name "
    "the files."
)


def section(profiles: Profiles) -> Section:
    """Of two profiles: fields, what only one of them has, types that differ, and the sentence."""
    if len(profiles) != 2:
        return Section("schema", ())
    first, second = (_types(profile) for profile in profiles)
    rows = [row(profiles, "fields", lambda p: number(len(_types(p))))]
    rows += [
        row(profiles, name, _written_of(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]
    remarks = [sentence(profiles[0], profiles[1])]
    remarks += [BUILT] if any(p.kind == "subset" for p in profiles) else []
    return Section("schema", tuple(rows), " ".join(remarks))


def sentence(first: Profile, second: Profile) -> str:
    """`Schema equal: the same 9 fields (answer, …) of the same types.`, or how they differ."""
    a, b = _types(first), _types(second)
    if a.keys() == b.keys():
        fields = f"the same {len(a)} fields ({', '.join(sorted(a))})"
        odd = [name for name in a if a[name] != b[name]]
        if not odd:
            return f"Schema equal: {fields} of the same types."
        return f"Schema differs in types: {fields}, but other types of {', '.join(odd)}."
    parts = [
        f"only {profile.name} has {', '.join(more)}"
        for profile, more in ((first, sorted(a.keys() - b.keys())),
                              (second, sorted(b.keys() - a.keys())))
        if more
    ]  # fmt: skip
    return f"Schema differs: {'; '.join(parts)}."


def _types(profile: Profile) -> dict[str, frozenset[str]]:
    """Every field that some record has -> the types it is written with."""
    found = {f.name: _written(f) for f in profile.fields if f.no_key < profile.records}
    return found | {name: frozenset({"not counted"}) for name in profile.other_fields}


def _written(field: FieldProfile) -> frozenset[str]:
    return frozenset(field.types) - NO_VALUE


def _written_of(name: str) -> Find:
    def figure(profile: Profile) -> Figure:
        types = _types(profile)
        if name not in types:
            return Figure("no such field")
        return Figure(", ".join(sorted(types[name])) or "never a value")

    return figure
