"""Tables and text files of strangers: strict, every deviation named by its row and why."""

from __future__ import annotations

import codecs
import csv
import io
import shutil
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_mm.adapters import SourceReport, text_damage, text_files, vqa_challenge
from datasets_mm.building.build import BuildError, Subset, build
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.text_encoding import Encoding, EncodingError, decode

HEAD = "id,image,question,a,b,c,d,answer\n"


def _table(text: str) -> tuple[text_files.TextTable, SourceReport]:
    report = SourceReport()
    return text_files.parse_table(text, "t.csv", report), report


def _outcome(text: str) -> tuple[dict[int, list[str]], dict[int, str]]:
    """(row -> cells, row -> problem)."""
    table, _ = _table(text)
    good = {row.number: row.cells for row in table.rows if not row.problem}
    return good, {row.number: row.problem for row in table.rows if row.problem}


@pytest.mark.parametrize(
    ("rows", "cells", "problems"),
    [
        # (rows below `x,y,z`, row -> cells that are read, row -> why not)
        ('1,"she said "hi" there",c\n2,b,c\n', {3: ["2", "b", "c"]}, {2: text_files.STRAY}),
        ('1,"open,c\n2,b" d,c\n3,b,c\n', {3: ["2", 'b" d', "c"], 4: ["3", "b", "c"]},
         {2: text_files.STRAY}),
        ('1,"open,c\n2,b",c\n3,b,c\n', {3: ["2", 'b"', "c"], 4: ["3", "b", "c"]},
         {2: text_files.SWALLOWED}),
        ('1,"two\nlines, yes",c\n2,b,c\n', {2: ["1", "two\nlines, yes", "c"], 3: ["2", "b", "c"]},
         {}),
        ('1,the 5" screen,c\n', {2: ["1", 'the 5" screen', "c"]}, {}),
        ('1,"a ""b"" c",d\n', {2: ["1", 'a "b" c', "d"]}, {}),
        ('1, "b, c" ,d\n', {2: ["1", "b, c", "d"]}, {}),
        ("1,b, c,d\n2,b\n3,b,c,,\n", {4: ["3", "b", "c"]},
         {2: text_files.RAGGED, 3: text_files.RAGGED}),
        ("1;b;c\n2,b,c\n", {3: ["2", "b", "c"]}, {2: text_files.OTHER_SIGN}),
        ("1,b\0,c\n2,b,c\n", {3: ["2", "b", "c"]}, {2: text_files.NUL}),
        (" , ,\n\n1,b,c", {4: ["1", "b", "c"]}, {}),
    ],
)  # fmt: skip
def test_each_deviation_is_named_and_costs_its_own_row(
    rows: str, cells: dict[int, list[str]], problems: dict[int, str]
) -> None:
    assert _outcome("x,y,z\n" + rows) == (cells, problems)


def test_what_is_odd_but_kept_is_noted_by_row() -> None:
    _, report = _table('x,y\n1,the 5" screen\n2, "b"\n')
    assert report.examples[text_files.BARE] == ["t.csv row 2"]
    assert report.examples[text_files.SPACED] == ["t.csv row 3"]


def test_cells_that_a_spreadsheet_lost_are_named() -> None:
    table, report = _table("id,a\n1,#NAME?\n2,# NAME\n3, #REF! \n4,C#N/A\n")
    text_files.note_spreadsheet_errors(table, report)
    assert report.noted == {text_files.EXCEL: 2}
    assert report.examples[text_files.EXCEL] == ["t.csv row 2", "t.csv row 4"]


def test_the_heading_decides_the_sign_that_separates() -> None:
    assert _outcome('"a, b";c\n1;2\n') == ({2: ["1", "2"]}, {})
    assert _outcome("sep=;\na,x;b\n1,5;2\n") == ({3: ["1,5", "2"]}, {})
    assert _outcome("a\tb\n1, 2\t3\n") == ({2: ["1, 2", "3"]}, {})
    assert _outcome("a|b|\n1|2|\n") == ({2: ["1", "2"]}, {})
    assert _outcome("one\nx\ny\n") == ({2: ["x"], 3: ["y"]}, {})


def test_headings_in_any_dress_and_never_twice() -> None:
    table, _ = _table("\ufeff Image Path ,QUESTION,question \u200b\n1,2,3\n")
    assert table.find_columns({"image": ("img", "image_path")}) == {"image": 0}
    with pytest.raises(SourceError, match="t.csv has 2 columns 'question'; rename all but one"):
        table.find_columns({"question": ("question",)})
    assert table.find_columns({"other": ("no",)}) == {}
    with pytest.raises(SourceError, match="mend the heading"):
        _table('a,"b"x\n1,2\n')


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_strict_writer_writes_is_read_as_it_was(
    rows: list[list[str]], delimiter: str, end: str
) -> None:
    """Oracle: Python's csv writer with every cell quoted. Line ends in cells become LF."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([["h1", "h2", "h3"], *rows])
    text = out.getvalue().replace("\r\n", "\n").replace("\r", "\n")
    table, report = _table(text)
    wanted = [[c.replace("\r\n", "\n").replace("\r", "\n") for c in row] for row in rows]
    wanted = [row for row in wanted if any(cell.strip() for cell in row)]
    got = [row.cells for row in table.rows if row.problem != text_files.SWALLOWED]
    swallowed = sum(row.problem == text_files.SWALLOWED for row in table.rows)
    if not swallowed:
        assert got == wanted
        assert report.noted == {}


@given(st.text(st.sampled_from('ab1,";\n\0 '), max_size=80))
def test_any_text_is_a_table_or_a_sentence(text: str) -> None:
    try:
        table, _ = _table(text)
    except SourceError as reason:
        assert str(reason).startswith("t.csv ")  # noqa: PT017
        return
    numbers = [row.number for row in table.rows]
    assert numbers == sorted(set(numbers))
    for row in table.rows:
        assert row.problem or len(row.cells) == len(table.header)


# -- encodings ---------------------------------------------------------------------------------

KOREAN = "id,질문\n1,사진에서 사람이 들고 있는 것은 무엇인가요?\n2,TV를 보는 아이는 몇 명인가?\n"
ENGLISH = "id,q\n1,What’s on the dog’s head?\n2,“café” – naïve façade 20° £5 …\n"
FRENCH = (
    "image,caption\na.png,Un garçon élégant à côté d'une fenêtre\nb.png,Ça va, ÉTÉ À LA PLAGE\n"
)
JAPANESE = "id,質問\n1,この写真の中に何が見えますか？\n2,カメラを持っている人は誰ですか\n"
CHINESE = "id,问题\n1,这张照片里有什么东西在桌子上面呢,红色的苹果和绿色的香蕉\n"
RUSSIAN = "id,вопрос\n1,Что находится на столе рядом с красным яблоком?\n"
POLISH = "id,q\n1,Zażółć gęślą jaźń, co to jest na środku stołu?\n"


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        (KOREAN, "utf-8", ""), (KOREAN, "utf-8-sig", ""), (KOREAN, "utf-16", ""),
        (KOREAN, "utf-32", ""),
        (KOREAN, "cp949", "CP949"), (KOREAN, "euc-kr", "CP949"), ("1,컵\n", "cp949", "CP949"),
        ("가", "cp949", "CP949"), (KOREAN, "utf-16-le", "UTF-16"), (ENGLISH, "utf-16-be", "UTF-16"),
        (ENGLISH, "cp1252", "Windows-1252"), (FRENCH, "cp1252", "Windows-1252"),
        (FRENCH, "latin-1", "Windows-1252"), ("Who’s", "cp1252", "Windows-1252"),
        ("«Été», créée", "cp1252", "Windows-1252"), ("사용 상수", "cp949", "CP949"),
        (JAPANESE, "cp932", "Shift-JIS"),
    ],
)  # fmt: skip
def test_an_encoding_is_found_where_its_text_is_plausible(
    text: str, encoding: str, guess: str
) -> None:
    assert decode(text.encode(encoding)) == (text, guess)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "gb18030"), (CHINESE, "big5hkscs"), (JAPANESE, "euc-jp"), (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"), (POLISH, "cp1250"), (ENGLISH, "mac-roman"), (FRENCH, "mac-roman"),
    ],
)  # fmt: skip
def test_no_guess_is_better_than_a_wrong_one(text: str, encoding: str) -> None:
    data = text.encode(encoding, "ignore")
    with pytest.raises(EncodingError, match="state `encoding`"):
        decode(data)
    if encoding in get_args(Encoding):
        assert decode(data, encoding) == (text, "")


@pytest.mark.parametrize(
    ("data", "text", "guess"),
    [
        # chardet#170 and #279: apostrophes and pounds that detectors take for Korean
        (b"OTE up to \xa350K first year!. to \xb7 perform", "£50K", "Windows-1252"),
        (b"y!\r\n- We\xb4re going", "We´re", "Windows-1252"),
        # jschardet#61, chardet#161, libchardet#14: Korean names that they take for Western
        (b"\xc7\xd1\xb1\xb9\xbe\xee.txt", "한국어.txt", "CP949"),
        (b"\xb1\xe8\xbc\xba\xbd\xc4", "김성식", "CP949"),
        ("안녕하세요".encode("euc-kr"), "안녕하세요", "CP949"),
        # uchardet#40 and #42: UTF-8 that they take for Western
        ("shouldn’t".encode(), "shouldn’t", ""),
        ("hour时.txt".encode(), "hour时.txt", ""),
    ],
)
def test_bytes_that_public_detectors_get_wrong(data: bytes, text: str, guess: str) -> None:
    said, found = decode(data)
    assert text in said
    assert found == guess


def test_two_encodings_in_one_file_and_a_wrong_statement_are_refused() -> None:
    with pytest.raises(EncodingError, match="as far as its text is plausible"):
        decode(KOREAN.encode() + KOREAN.encode("cp949"))
    with pytest.raises(EncodingError, match=r"is not in cp949 \(byte 7"):
        decode(b"id,abc\n\xff\xff", "cp949")
    with pytest.raises(EncodingError, match="is not in utf-16"):
        decode(codecs.BOM_UTF16_LE + b"a\0b")  # an odd byte was once replaced in silence


def test_signs_of_earlier_damage_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,q\n1,What\ufffds this\n2,itâ€™s cafÃ©\n", "utf-8")
    report = SourceReport()
    text_files.read_text(path, "t.csv", report)
    assert set(report.noted) == {text_files.REPAIRED, text_files.MOJIBAKE}


@pytest.mark.parametrize(
    ("text", "is_damaged"),
    [("강아지가 달린다", True), ("그림 속", True), ("Así…” forêt – ê", False), ("강아지", False)],
)
def test_korean_that_was_saved_as_western_text_is_noted(
    tmp_path: Path, text: str, is_damaged: bool
) -> None:
    path = tmp_path / "t.csv"
    saved = text.encode().decode("latin-1") if is_damaged else text
    path.write_text(f"id,q\n1,{saved}\n", "utf-8")
    report = SourceReport()
    text_files.read_text(path, "t.csv", report)
    assert (text_files.MOJIBAKE in report.noted) == is_damaged


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Tom &amp; Jerry&#39;s", text_damage.ENTITIES), ("a dog<br>runs", text_damage.ENTITIES),
        ("\\uac15\\uc544", text_damage.ESCAPES), ("<image>\n강아지", text_damage.TOKENS),
        ("a dog<|im_end|>", text_damage.TOKENS), ("a dog</s>", text_damage.TOKENS),
        ("I'm sorry, but I can't help with that.", text_damage.REFUSALS),
        ("죄송합니다. 도와드릴 수 없습니다.", text_damage.REFUSALS),
        ("AT&T <3 a; b & c", ""), ("He says: I'm sorry!", ""), ("x < y > z", ""),
        ("C:\\users\\u", ""), ("죄송하다고 인사하는 남자", ""),
    ],
)  # fmt: skip
def test_signs_of_machines_in_a_text_are_noted(text: str, reason: str) -> None:
    report = SourceReport()
    text_damage.note_damage([text, "a dog"], "row 2", report)
    assert list(report.noted) == ([reason] if reason else [])


# -- the challenge's files ---------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "img").mkdir(parents=True)
    (folder / "img" / "a.png").touch()
    return folder


def _rows(answers: str, count: int = 0) -> str:
    letters = answers * count if count else answers
    return HEAD + "".join(
        f"q{number},img/a.png,which?,w,x,y,z,{letter}\n" for number, letter in enumerate(letters)
    )


def _built(place: Path, name: str) -> Subset:
    return build(f"vqa_challenge_{name}", place.parent / "cache", place)


def _answers(subset: Subset) -> list[str]:
    return ["".join(row) for row in subset.records["answer"].to_pylist()]


@pytest.mark.parametrize(
    "answers", ["aaaaaa", "??????", "------", "000000", ["TBD"] * 6, ["-1"] * 6]
)
def test_placeholders_of_test_rows_are_not_known_answers(place: Path, answers: str) -> None:
    (place / "test.csv").write_text(_rows(answers))
    subset = _built(place, "test")
    assert _answers(subset) == [""] * 6
    said = [one for one in subset.manifest["notices"] if "count as not known" in one]
    assert len(said) == 1
    assert said[0].startswith("6 ")


def test_the_answers_of_the_sample_submission_are_placeholders(place: Path) -> None:
    (place / "test.csv").write_text(_rows("abcdab"))
    sample = "".join(f"q{number},{letter}\n" for number, letter in enumerate("abcdab"))
    (place / "sample_submission.csv").write_text("id,answer\n" + sample)
    assert _answers(_built(place, "test")) == [""] * 6
    (place / "sample_submission.csv").write_text("id,answer\n" + sample.replace(",b", ",a"))
    assert _answers(_built(place, "test")) == list("abcdab")


def test_true_answers_of_test_rows_stay_and_a_doubtful_few_are_told(place: Path) -> None:
    (place / "test.csv").write_text(_rows("abcab?"))
    subset = _built(place, "test")
    assert _answers(subset) == ["a", "b", "c", "a", "b", ""]
    assert any("no letters" in one and "'?'" in one for one in subset.manifest["notices"])
    (place / "test.csv").write_text(_rows("bbb"))
    few = _built(place, "test")
    assert _answers(few) == ["b", "b", "b"]
    assert any(vqa_challenge.ONE_LETTER in one for one in few.manifest["notices"])


def test_training_rows_of_one_letter_are_told(place: Path) -> None:
    (place / "train.csv").write_text(_rows("c", 9))
    assert any(
        vqa_challenge.ONE_LETTER in one for one in _built(place, "train").manifest["notices"]
    )


def test_broken_quotes_in_train_are_counted_and_in_test_refused(place: Path) -> None:
    rows = HEAD + '1,img/a.png,"she said "hi"",w,x,y,z,a\n2,img/a.png,"ok, yes",w,x,y,z,b\n'
    (place / "train.csv").write_text(rows)
    (place / "test.csv").write_text(rows)
    subset = _built(place, "train")
    assert subset.records["question"].to_pylist() == ["ok, yes"]
    assert subset.manifest["source_examples"] == {text_files.STRAY: ["train.csv row 2 (id 1)"]}
    with pytest.raises(BuildError, match=r"1 of 2 test rows .* row 2 \(id 1\): a quotation mark"):
        _built(place, "test")


def test_the_recipe_states_an_encoding(place: Path, own_recipes) -> None:
    (place / "t.csv").write_bytes((HEAD + "1,img/a.png,Что это?,да,нет,a,b,a\n").encode("cp1251"))
    recipe = (
        'schema = 1\nname = "own"\ntitle = "t"\n[source]\nadapter = "challenge"\n'
        'uri = ["t.csv"]\nimages = "."\ndataset = "train"\n'
    )
    own_recipes("own", recipe)
    with pytest.raises(BuildError, match="state `encoding`"):
        build("own", place.parent / "cache", place)
    own_recipes("own", recipe + 'encoding = "cp1251"\n')
    subset = build("own", place.parent / "cache", place)
    assert subset.records["question"].to_pylist() == ["Что это?"]
    own_recipes("own", recipe + 'encoding = "koi8-r"\n')
    with pytest.raises(Exception, match="encoding"):
        build("own", place.parent / "cache", place)


def test_an_encoding_is_part_of_what_was_read(place: Path, own_recipes) -> None:
    """The same bytes under another statement are other records, not those of the cache."""
    (place / "c.csv").write_bytes(b"image,caption\nimg/a.png,caf\xe9 bar\n")
    recipe = (
        'schema = 1\nname = "own"\ntitle = "t"\n[source]\nadapter = "captions"\nuri = ["c.csv"]\n'
        'images = "."\n'
    )
    own_recipes("own", recipe)
    first = build("own", place.parent / "cache", place)
    own_recipes("own", recipe + 'encoding = "mac-roman"\n')
    second = build("own", place.parent / "cache", place)
    assert first.records["answer"].to_pylist() == [["café bar"]]
    assert second.records["answer"].to_pylist() == [["cafÈ bar"]]
    assert first.fingerprint != second.fingerprint
    shutil.rmtree(place.parent / "cache")


def test_signs_that_nobody_sees_are_no_text(place: Path) -> None:
    """Copied from a web page: `a` and a blank of no width is the letter, and the blank alone no
    option."""
    rows = ("1\u200b,img/a.png,q?,w,x,y,z,a\u200b\n2,img/a.png,q?,\u200b,x,y,z,b\n"
            "3,img/a.png\u200b,q?,#REF!,x,y,z,\ufeffc\n")  # fmt: skip
    (place / "train.csv").write_text(HEAD + rows, "utf-8")
    subset = _built(place, "train")
    assert subset.records["data_id"].to_pylist() == ["1", "3"]
    assert _answers(subset) == ["a", "c"]
    assert subset.manifest["source_skipped"] == {vqa_challenge.NO_OPTION: 1}
