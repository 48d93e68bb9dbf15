"""Whether two files have one schema, in a sentence and in rows."""

from datasets_mm.profile.profile import FieldProfile, Profile
from workbench.data_profile import schema_diff, sections

NINE = (
    "answer", "data_id", "dataset_id", "image_path", "instruction", "passage_id",
    "passage_image_path", "passage_text", "question",
)  # fmt: skip


def profile(name: str, **more: object) -> Profile:
    fields = tuple(FieldProfile(name=field, types={"text": 3}) for field in NINE)
    return Profile(
        **{"name": name, "kind": "jsonl", "place": name, "records": 3, "fields": fields} | more
    )


def test_equal_schemas_are_said_to_be_equal() -> None:
    nulls = tuple(FieldProfile(name=f, types={"text": 2, "null": 1}, null=1) for f in NINE)
    pair = [profile("a"), profile("b", fields=nulls)]
    assert schema_diff.describe_difference(*pair) == (
        f"Schema equal: the same 9 fields ({', '.join(NINE)}) of the same types."
    )
    section = next(s for s in sections.build_sections(pair) if s.title == "schema")
    assert [row.label for row in section.rows] == ["fields"]
    assert not schema_diff.schema_section(pair[:1]).rows, "one file has nothing to be equal to"


def test_fields_and_types_that_differ_are_named() -> None:
    fields = [FieldProfile(name=f, types={"text": 3}) for f in NINE]
    listed = [*fields[:-1], FieldProfile(name="question", types={"list of text": 3})]
    assert "other types of question" in schema_diff.describe_difference(
        profile("a"), profile("b", fields=tuple(listed))
    )
    fewer = [*fields[:-1], FieldProfile(name="question", no_key=3)]
    other = profile("b", fields=tuple(fewer), other_fields={"lang": 3})
    assert schema_diff.describe_difference(profile("a"), other) == (
        "Schema differs: only a has question; only b has lang."
    )
    rows = {
        r.label: [f.text for f in r.figures]
        for r in schema_diff.schema_section([profile("a"), other]).rows
    }
    assert rows["question"] == ["text", "no such field"]
    assert rows["lang"] == ["no such field", "not counted"]


def test_of_built_subsets_it_is_said_that_the_build_made_them_so() -> None:
    built = profile("a", kind="subset")
    assert schema_diff.BUILT in schema_diff.schema_section([built, profile("b")]).remark
