"""A challenge's folder: every way of writing it means the same; dirt is named by file and row."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from datasets_mm.adapters import vqa_challenge
from datasets_mm.adapters.text_files import RAGGED
from datasets_mm.building.build import BuildError, Subset, build
from engines.vqa.data import questions

FIXTURES = Path(__file__).parents[2] / "fixtures" / "challenge"
"""Typed by hand; what is expected of each was counted by hand."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder with two pictures, and no table yet."""
    folder = tmp_path / "data"
    (folder / "img").mkdir(parents=True)
    for number, name in enumerate(("one", "two")):
        Image.new("RGB", (8, 6), (50 * number, 0, 0)).save(folder / "img" / f"{name}.png")
    return folder


def made(place: Path, **tables: str) -> None:
    for name, fixture in tables.items():
        shutil.copyfile(FIXTURES / f"{fixture}.csv", place / f"{name}.csv")


def learn(place: Path) -> Subset:
    return build("vqa_challenge_train", place.parent / "cache", place)


def asked_of(place: Path) -> Subset:
    return build("vqa_challenge_test", place.parent / "cache", place)


def refused(place: Path, name: str = "vqa_challenge_train") -> str:
    """What is said instead of a subset; nothing half-written stays behind."""
    with pytest.raises(BuildError) as error:
        build(name, place.parent / "cache", place)
    left = [p for p in (place.parent / "cache").rglob("*") if p.is_file()]
    assert not [p for p in left if ".tmp-" in str(p) or "subsets/vqa" in str(p)]
    assert all((p.parent / "manifest.json").is_file() for p in left if p.suffix == ".arrow")
    said = str(error.value)
    assert "\n" not in said
    return said


def test_train_and_test_are_two_subsets(place: Path) -> None:
    made(place, train="train", test="test", sample_submission="sample_submission")
    learnt, asked = learn(place), asked_of(place)
    found = questions.read_questions(learnt)
    assert found.ids == ["t1", "t2", "t3", "t4"]
    assert found.answers.tolist() == [0, 1, 2, 3]
    assert found.options[0] == ("a cup", "a plate", "a knife, a fork", "nothing")
    # "None" and "NA" are options like others; pandas would have made them NaN.
    assert (found.options[1][3], found.options[2][3]) == ("None", "NA")
    assert found.texts[3] == 'Who said "hello"?'
    assert found.kinds == ["what", "how many", "yes/no", "who"]
    assert learnt.manifest["skipped"] == learnt.manifest["source_skipped"] == {}
    assert (found.root / found.paths[0]).is_file()

    unknown = questions.read_questions(asked)
    assert unknown.ids == ["q1", "q10", "q2"]
    assert unknown.answers.tolist() == [-1, -1, -1]
    sample = questions.read_sample_submission(asked)
    assert sample == questions.SubmissionTemplate(("id", "answer"), ("q1", "q2", "q10"))
    assert questions.read_sample_submission(learnt) is None


def test_taking_questions_keeps_their_parts_together(place: Path) -> None:
    made(place, train="train")
    found = questions.read_questions(learn(place))
    some = found.select([3, 0])
    assert (some.ids, some.answers.tolist()) == (["t4", "t1"], [3, 0])
    assert (some.options[1], some.kinds) == (found.options[0], ["who", "what"])
    assert len(set(found.groups())) == 2
    assert found.groups()[0] == found.groups()[1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_every_encoding_and_name_of_columns_means_the_same(place: Path, encoding: str) -> None:
    text = (FIXTURES / "other_names.csv").read_text("utf-8")
    if encoding == "utf-16":
        text = text.replace(",", "\t").replace("\n", "\r\n")  # Excel's "Unicode text"
    (place / "train.csv").write_bytes(text.encode(encoding))
    subset = learn(place)
    found = questions.read_questions(subset)
    assert found.options == [("컵", "접시", "칼", "없음"), ("하나", "둘", "셋", "넷")]
    assert (found.texts[1], found.kinds) == ("몇 개인가요?", ["사물", "개수"])
    assert found.answers.tolist() == [0, 3]
    said = [one for one in subset.manifest["notices"] if "CP949" in one]
    assert len(said) == (encoding == "cp949")


def test_dirt_is_left_out_counted_and_named(place: Path) -> None:
    made(place, train="dirty_train")
    subset = learn(place)
    assert questions.read_questions(subset).ids == ["g1", "g12", "g13"]
    manifest = subset.manifest
    assert manifest["source_skipped"] == {
        vqa_challenge.NO_LETTER: 3, vqa_challenge.NO_OPTION: 1, RAGGED: 2,
        vqa_challenge.NO_IMAGE: 1, vqa_challenge.NO_QUESTION: 1,
        vqa_challenge.NO_ID: 1, vqa_challenge.CONFLICTING_ID: 2,
    }  # fmt: skip
    named = manifest["source_examples"]
    assert named[vqa_challenge.NO_LETTER] == [
        "train.csv row 3 (id g2)", "train.csv row 4 (id g3)", "train.csv row 19 (id g14)",
    ]  # fmt: skip
    assert named[RAGGED] == ["train.csv row 7 (id g5)", "train.csv row 8 (id g6)"]
    assert named[vqa_challenge.NO_ID] == ["train.csv row 11"]
    assert named[vqa_challenge.CONFLICTING_ID] == [
        "train.csv row 14 (id g11)",
        "train.csv row 15 (id g11)",
    ]
    assert manifest["source_noted"] == {
        vqa_challenge.EQUAL_OPTIONS: 1,
        vqa_challenge.DUPLICATE_ROW: 1,
    }
    assert manifest["skipped"] == {"picture missing": 1, "picture outside the image root": 1}
    assert manifest["examples"]["picture missing"] == ["train.csv row 12 (id g9): img/gone.png"]


def test_a_picture_that_comes_later_is_found(place: Path) -> None:
    made(place, train="dirty_train")
    first = learn(place)
    shutil.copyfile(place / "img" / "one.png", place / "img" / "gone.png")
    second = learn(place)
    assert len(second) == len(first) + 1
    assert second.fingerprint != first.fingerprint
    assert "picture missing" not in second.manifest["skipped"]


def test_the_order_of_rows_leaves_no_trace(place: Path) -> None:
    made(place, train="dirty_train")
    first = learn(place).fingerprint
    head, *rows = (place / "train.csv").read_text("utf-8").split("\n", 1)
    lines = rows[0].replace('"Two\nlines?"', '"Two lines?"').splitlines()
    (place / "train.csv").write_text("\n".join([head, *lines[::-1]]) + "\n", "utf-8")
    assert learn(place).fingerprint == first


@pytest.mark.parametrize(
    ("fixture", "said"),
    [
        ("no_column", "train.csv has no column image, d (its first row has 'id', 'picture', "),
        ("torn_quote", "train.csv row 3: a quotation mark is opened and never closed"),
        (None, "train.csv is empty; copy it again"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused(
    place: Path, fixture: str | None, said: str
) -> None:
    if fixture:
        made(place, train=fixture)
    else:
        (place / "train.csv").write_bytes(b"\r\n")
    assert said in refused(place)


def test_a_huge_cell_is_a_torn_file_and_no_traceback(place: Path) -> None:
    head = "id,image,question,a,b,c,d,answer\n"
    (place / "train.csv").write_text(head + 'x,img/one.png,"' + "y,\n" * 60_000, "utf-8")
    assert "train.csv row 2: a quotation mark is opened and never closed" in refused(place)


def test_bytes_of_no_encoding_are_refused(place: Path) -> None:
    (place / "train.csv").write_bytes(b"id,image\n\xff\xfe\x00\x81\x20")
    assert "neither UTF-8 nor CP949" in refused(place)


def test_a_cut_last_row_is_left_out(place: Path) -> None:
    made(place, train="torn_row")
    subset = learn(place)
    assert len(subset) == 1
    assert subset.manifest["source_examples"] == {RAGGED: ["train.csv row 3 (id t2)"]}


def test_a_test_row_that_cannot_be_answered_refuses_the_file(place: Path) -> None:
    made(place, test="wrong_test", sample_submission="sample_submission")
    said = refused(place, "vqa_challenge_test")
    assert "4 of 5 test rows cannot be answered" in said
    assert f"test.csv row 3 (id q2): {vqa_challenge.NO_OPTION}" in said
    assert f"test.csv row 5 (id q3): {RAGGED}" in said
    assert said.endswith("and 1 more")


def test_ids_that_come_twice_among_test_rows_are_refused(place: Path) -> None:
    text = (FIXTURES / "test.csv").read_text("utf-8").replace("q10,", "q1,")
    (place / "test.csv").write_text(text, "utf-8")
    said = refused(place, "vqa_challenge_test")
    assert "test.csv row 4: id q1 is also that of test.csv row 3" in said


def test_a_missing_test_picture_is_refused_by_row(place: Path) -> None:
    made(place, test="test")
    (place / "img" / "two.png").unlink()
    with pytest.raises(BuildError, match=r"test\.csv row 2 \(id q2\): img/two\.png") as error:
        asked_of(place)
    assert "--set image_root=/folder" in str(error.value)


def test_pictures_in_another_folder_are_asked_for_and_found(place: Path) -> None:
    made(place, train="train")
    (place / "img").rename(place / "photos")
    (place / "photos" / "img").mkdir()
    for name in ("one", "two"):
        (place / "photos" / f"{name}.png").rename(place / "photos" / "img" / f"{name}.png")
    said = refused(place)
    assert "no record is left (4 picture missing); name the pictures' folder with" in said
    assert said.endswith("--set image_root=/folder (first: train.csv row 2 (id t1): img/one.png)")
    found = build(
        "vqa_challenge_train", place.parent / "cache", place, image_root=str(place / "photos")
    )
    assert len(found) == 4


def test_the_sample_submission_must_have_the_ids_of_the_test_rows(place: Path) -> None:
    made(place, test="test", sample_submission="wrong_sample")
    said = refused(place, "vqa_challenge_test")
    assert "1 test rows are not in it (first: test.csv row 4)" in said
    assert "1 of its ids are no test row (first: q3); 1 of its ids come twice" in said
    made(place, sample_submission="sample_submission")
    first = asked_of(place)
    (place / "sample_submission.csv").unlink()
    without = asked_of(place)
    assert any(vqa_challenge.NO_SAMPLE in one for one in without.manifest["notices"])
    kept = questions.read_sample_submission(without)
    assert kept is not None
    assert sorted(kept.ids) == ["q1", "q10", "q2"]
    # The sample is part of what was read: another one is another subset.
    assert first.fingerprint != without.fingerprint


def test_a_sample_tells_the_form_of_answers(place: Path) -> None:
    made(place, test="test")
    forms = {"A": (True, 0), "a": (False, 0), "0": (False, 3), "": (False, 0)}
    for answer, (capitals, notes) in forms.items():
        rows = "".join(f"{name},{answer}\n" for name in ("q1", "q2", "q10"))
        (place / "sample_submission.csv").write_text("id,answer\n" + rows)
        subset = asked_of(place)
        template = questions.read_sample_submission(subset)
        assert template is not None
        assert template.capitals == capitals
        shutil.rmtree(place.parent / "cache")
        said = [one for one in subset.manifest["notices"] if vqa_challenge.SAMPLE_FORM in one]
        assert [one.split()[0] for one in said] == [str(notes)] * (notes > 0)


def test_a_fifth_option_is_not_cut_off(place: Path) -> None:
    """The right answer may be it, and four of five options are an easier question."""
    heading = "id,image,question,a,b,c,d,option_e,answer\n"
    rows = "t1,img/one.png,q?,v,w,x,y,z,b\nt2,img/two.png,q?,v,w,x,y,,b\n"
    for name in ("train", "test"):
        (place / f"{name}.csv").write_text(heading + rows)
    assert "row 2 (id t1): the question has a fifth option" in refused(place, "vqa_challenge_test")
    subset = learn(place)
    assert subset.records["data_id"].to_pylist() == ["t2"]
    assert subset.manifest["source_skipped"] == {vqa_challenge.FIFTH_OPTION: 1}


def test_a_damaged_sample_is_found_and_built_anew(place: Path) -> None:
    from datasets_mm import cache_health

    made(place, test="test", sample_submission="sample_submission")
    first = asked_of(place)
    assert cache_health.check_subset(first.folder)["problem"] == ""
    path = first.folder / "submission.json"
    whole = path.read_bytes()
    path.unlink()  # a hard link to the source's: only this name goes
    path.write_bytes(whole.replace(b"q10", b"q11"))
    assert (
        cache_health.check_subset(first.folder)["problem"]
        == "its files are not those of its manifest"
    )
    again = asked_of(place)
    assert (again.folder / "submission.json").read_bytes() == whole
    assert again.fingerprint == first.fingerprint


def test_a_recipe_must_say_train_or_test(tmp_path: Path, own_recipes) -> None:
    from datasets_mm.recipes.recipe import RecipeError, read

    path = own_recipes(
        "mine",
        'schema = 1\nname = "mine"\ntitle = "t"\n[source]\nadapter = "challenge"\n'
        'uri = ["valid.csv"]\n',
    )
    with pytest.raises(RecipeError, match="needs `dataset`: train, or test"):
        read(path)


def test_subsets_without_options_are_refused_by_name(place: Path, own_recipes) -> None:
    from engines.emitter import EngineError

    (place / "c.csv").write_text("media,caption\nimg/one.png,a cup\n")
    own_recipes(
        "said",
        'schema = 1\nname = "said"\ntitle = "t"\n[source]\nadapter = "captions"\n'
        'uri = ["c.csv"]\nimages = "."\n',
    )
    subset = build("said", place.parent / "cache", place)
    with pytest.raises(EngineError, match="'said': its records have no options; run vqa on"):
        questions.read_questions(subset)


GOOD = (
    '{"answer": ["a"], "data_id": "q%d", "dataset_id": "OKVQA", "image_path": "a.png", '
    '"instruction": "i", "passage_id": ["p1"], "passage_image_path": ["b.png"], '
    '"passage_text": ["The first."], "question": "What is it?"}\n'
)


def test_subsets_of_before_the_options_keep_their_fingerprints(tmp_path: Path, own_recipes) -> None:
    """Constants: what the commit before the `options` column gave for the same content."""
    from datasets_mm import catalog

    data = tmp_path / "data"
    data.mkdir()
    for name in "ab":
        (data / f"{name}.png").write_bytes(b"x")
    (data / "r.jsonl").write_text("".join(GOOD % n for n in range(3)))
    (data / "typed.csv").write_text("media,caption\na.png,a cat\nb.png,a dog\na.png,one cat\n")
    for name, adapter, uri in (("typed", "jsonl", "r.jsonl"), ("said", "captions", "typed.csv")):
        own_recipes(
            name,
            f'schema = 1\nname = "{name}"\ntitle = "t"\n[source]\nadapter = "{adapter}"\n'
            f'uri = ["{uri}"]\nimages = "."\n',
        )
    found = {name: build(name, tmp_path / "cache", data) for name in ("typed", "said")}
    assert found["typed"].fingerprint == "d76b7554d22e8a5d3c1696a2f6883b98"
    assert found["said"].fingerprint == "c6fe7d85777c134124690d32c6359752"
    assert "options" not in found["typed"].records.column_names
    digests = {n: catalog.recipe_digest(catalog.lineage(n)) for n in ("emoji_val", "oven_train")}
    assert digests == {"emoji_val": "39b4a6f5-eac2bc06", "oven_train": "1be82a9d"}
