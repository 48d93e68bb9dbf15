"""What `data describe`, `diff` and `check` say of questions and captions, against hand counts."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from datasets_mm.child_messages import ignore_progress
from datasets_mm.media import qwen_image_tokens
from datasets_mm.media.decode import upright_size
from datasets_mm.profile.check import find_problems, find_remarks, missing_sentence
from datasets_mm.profile.describe import DescribeOptions, describe
from datasets_mm.profile.image_checks import _summarize
from datasets_mm.profile.profile import NumberProfile, Profile
from datasets_mm.recipes.record_classes import question_type
from workbench.data_profile import sections

FIXTURES = Path(__file__).parents[2] / "fixtures" / "challenge"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "img").mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(folder / "img" / "one.png")
    Image.new("RGB", (100, 300)).save(folder / "img" / "two.png")
    for name in ("train", "test", "sample_submission"):
        shutil.copyfile(FIXTURES / f"{name}.csv", folder / f"{name}.csv")
    return folder


def described(place: Path, name: str) -> Profile:
    return describe(DescribeOptions(name, place.parent / "cache", place), ignore_progress)


def said(*profiles: Profile) -> dict[str, dict[str, tuple[str, ...]]]:
    """Section -> label -> figures, as every face shows them."""
    return {
        section.title: {row.label: tuple(f.text for f in row.figures) for row in section.rows}
        for section in sections.build_sections(profiles)
    }


def test_questions_are_counted_by_hand(place: Path) -> None:
    found = described(place, "vqa_challenge_train")
    assert (found.form, found.records, found.refused) == ("choices", 4, {})
    assert found.choices is not None
    assert found.choices.answers == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert found.questions == {"what": 1, "how": 1, "other": 1, "who": 1}
    assert found.choices.kinds == {"what": 1, "how many": 1, "yes/no": 1, "who": 1}
    assert found.other_fields == {}
    # "None" and "NA" are options: nothing is absent.
    options = found.field("options")
    assert (options.filled, options.elements, options.elements_absent) == (4, 16, 0)
    assert found.tokens is not None
    assert found.tokens.query is not None
    assert found.tokens.passage is not None
    assert (found.tokens.query.n, found.tokens.passage.n) == (4, 4)  # options weigh a quarter each

    shown = said(found)
    assert 0 < found.bytes < 1 << 20
    assert shown["size"]["size of the file"] == (f"{found.bytes / 1024:,.0f} KiB",), "not 0 MiB"
    assert shown["right answer"]["b"] == ("1 (25.00 %)",)
    assert "candidate passages per record" not in shown
    labels = [label for rows in shown.values() for label in rows]
    assert not [label for label in labels if "passage" in label or "truncated" in label]
    assert {"question: mean", "option: longest"} <= set(labels)


def test_sizes_and_tokens_of_pictures(place: Path) -> None:
    """At 512: 640 x 480 -> 512 x 384, 18 x 14 tokens of 28; 100 x 300 -> 171 x 512, 6 x 18."""
    found = described(place, "vqa_challenge_train")
    assert found.pictures is not None
    sizes = found.pictures.sizes
    assert sizes is not None
    assert (sizes.width.lowest, sizes.width.highest) == (100, 640)
    assert (sizes.height.lowest, sizes.height.highest) == (300, 480)
    assert (sizes.tokens[512].lowest, sizes.tokens[512].highest) == (6 * 18, 18 * 14)
    assert sum(sizes.histogram) == 2
    assert sizes.histogram[(6 * 18 - 1) // 32] == sizes.histogram[(18 * 14 - 1) // 32] == 1
    assert said(found)["tokens per picture"]["at 512 px: highest"] == ("252",)


def test_rows_without_answers_are_not_known_and_no_problem(place: Path) -> None:
    found = described(place, "vqa_challenge_test")
    assert said(found)["right answer"] == {"not known": ("3 (100.00 %)",)}
    assert find_problems(found) == []
    assert missing_sentence(found).endswith("missing fields: 0 (question, image_path, options)")
    assert "corpus" not in " ".join(find_remarks(found))


def test_two_parts_side_by_side(place: Path) -> None:
    both = [described(place, f"vqa_challenge_{name}") for name in ("train", "test")]
    shown = said(*both)
    assert shown["right answer"]["a"] == ("1 (25.00 %)", "0 (0.00 %)")
    assert shown["type of question"]["where"] == ("0 (0.00 %)", "1 (33.33 %)")


def test_check_names_what_a_build_left_out(place: Path) -> None:
    shutil.copyfile(FIXTURES / "dirty_train.csv", place / "train.csv")
    found = find_problems(described(place, "vqa_challenge_train"))
    sentences = [one.sentence() for one in found]
    assert any("picture missing: train.csv row 12 (id g9): img/gone.png" in s for s in sentences)
    assert any("not a, b, c or d" in s and "train.csv row 3 (id g2)" in s for s in sentences)


def test_captions_are_described_as_captions(place: Path, own_recipes) -> None:
    (place / "c.csv").write_text(
        "media,caption\nimg/one.png,a red cup\nimg/one.png,one cup\nimg/two.png,a tower\n"
    )
    own_recipes(
        "said",
        'schema = 1\nname = "said"\ntitle = "t"\n[source]\nadapter = "captions"\n'
        'uri = ["c.csv"]\nimages = "."\n',
    )
    found = described(place, "said")
    shown = said(found)
    assert found.refused == {}
    assert find_problems(found) == []
    assert shown["captions per record"]["2-3"] == ("1 (50.00 %)",)
    assert set(shown) == {
        "size", "absent values", "captions per record", "text lengths in tokens", "duplicates",
        "pictures",
    }  # fmt: skip
    labels = [label for rows in shown.values() for label in rows]
    assert not [label for label in labels if "passage" in label or "question" in label]


def test_no_picture_is_so_thin_that_it_has_no_token() -> None:
    assert qwen_image_tokens.image_tokens(640, 480, 512) == 18 * 14
    assert qwen_image_tokens.image_tokens(1, 5_000, 384) == round(384 / 28)


def test_spread_takes_values_that_occur() -> None:
    assert _summarize([4, 1, 3, 2]) == NumberProfile(lowest=1, median=2, p95=4, highest=4, mean=2.5)
    assert _summarize(list(range(1, 101))).p95 == 95


@pytest.mark.parametrize(("orientation", "expected"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30))])
def test_sizes_are_upright(orientation: int, expected: tuple[int, int]) -> None:
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    image.save(data, "JPEG", exif=exif)
    assert upright_size(data.getvalue()) == expected


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How many dogs are there?", "how many"), ("how is it made?", "how"),
        ("Is it red?", "yes/no"), ("What is it?", "what"), ("In which year", "which"),
        ("사진에 있는 동물은 무엇인가요?", "what"), ("컵은 몇 개인가요?", "how many"),
        ("이 사람은 누구인가요?", "who"), ("어디에서 찍은 사진인가요?", "where"),
        ("가장 알맞은 것을 고르시오.", "other"), ("", "none"),
    ],
)  # fmt: skip
def test_questions_are_sorted_by_their_words(question: str, kind: str) -> None:
    assert question_type(question) == kind
