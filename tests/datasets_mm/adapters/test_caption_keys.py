"""Which key holds the caption: forms of known data sets, and what is refused with its names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets_mm.building.build import BuildError, Subset, build
from datasets_mm.recipes.recipe import RecipeError, read

Make = Callable[..., Subset]


@pytest.fixture
def make(tmp_path: Path, own_recipes: Callable[[str, str], Path]) -> Make:
    """Builds a caption subset of one label file (or several, by name); media are made as named."""
    media = tmp_path / "data" / "media"
    media.mkdir(parents=True)

    def build_with(
        content: Any, more: str = "", name: str = "c.json", media_names: str = ""
    ) -> Subset:
        files = (
            content
            if isinstance(content, dict) and "/" in next(iter(content), "")
            else {name: content}
        )
        for path, inner in files.items():
            file = tmp_path / "data" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
            )
        for one in (media_names or "a.png b.png c.png").split():
            (media / one).parent.mkdir(parents=True, exist_ok=True)
            (media / one).touch()
        uri = "labels/*.json" if len(files) > 1 or "/" in next(iter(files)) else name
        own_recipes(
            "own",
            'schema = 1\nname = "own"\ntitle = "t"\n[source]\nadapter = "captions"\n'
            f'uri = ["{uri}"]\nimages = "media"\n{more}\n',
        )
        return build("own", tmp_path / "cache", tmp_path / "data")

    return build_with


def _captions(subset: Subset) -> dict[str, list[str]]:
    rows = subset.records.to_pylist()
    return {row["image_path"]: row["answer"] for row in rows}


def _counted(subset: Subset) -> int:
    return sum(subset.manifest["source_skipped"].values())


def _refused(make: Make, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(BuildError) as error:
        make(*args, **kwargs)
    return str(error.value)


INFO = {"description": "COCO 2017 Dataset", "year": 2017, "contributor": "x"}
LICENSES = [{"url": "http://x", "id": 1, "name": "Attribution", "description": "a licence"}]
CATEGORIES = [{"id": 1, "name": "cat", "description": "an animal", "caption": "no caption"}]

FORMS: dict[str, tuple[Any, str, str]] = {
    # name: (content, recipe, names of media)
    "COCO": (
        {"info": INFO, "licenses": LICENSES, "categories": CATEGORIES,
         "images": [{"license": 1, "file_name": "a.png", "coco_url": "http://x/a.png", "id": 7},
                    {"license": 1, "file_name": "b.png", "id": 8}],
         "annotations": [{"image_id": 7, "id": 1, "caption": "a cat"},
                         {"image_id": 8, "id": 2, "caption": "a dog"}]},
        "", ""),
    "NoCaps, ids as text": (
        {"info": INFO, "licenses": [], "images": [
            {"id": 0, "file_name": "a.png", "open_images_id": "00", "domain": "near-domain"},
            {"id": 1, "file_name": "b.png", "open_images_id": "01", "domain": "in-domain"}],
         "annotations": [{"image_id": "0", "id": 0, "caption": "a cat"},
                         {"image_id": "1", "id": 1, "caption": "a dog"}]},
        "", ""),
    "Karpathy": (
        {"dataset": "coco", "images": [
            {"filepath": "val2014", "sentids": [1], "filename": "a.png", "split": "test",
             "sentences": [{"tokens": ["a", "cat"], "raw": "a cat", "imgid": 0, "sentid": 1}]},
            {"filepath": "val2014", "sentids": [2], "filename": "b.png", "split": "test",
             "sentences": [{"tokens": ["a", "dog"], "raw": "a dog", "imgid": 1, "sentid": 2}]}]},
        'media = "{filepath}/{filename}"', "val2014/a.png val2014/b.png"),
    "Flickr8k, Karpathy": (
        {"dataset": "flickr8k", "images": [
            {"sentids": [0], "imgid": 0, "split": "train", "filename": "a.png",
             "sentences": [{"tokens": ["a"], "raw": "a cat", "imgid": 0, "sentid": 0}]},
            {"sentids": [1], "imgid": 1, "split": "train", "filename": "b.png",
             "sentences": [{"tokens": ["a"], "raw": "a dog", "imgid": 1, "sentid": 1}]}]},
        "", ""),
    "MSR-VTT": (
        {"info": {"description": "MSR-VTT", "version": "1"}, "videos": [
            {"category": 9, "url": "http://x", "video_id": "a", "start time": 1, "split": "train",
             "id": 0},
            {"category": 9, "url": "http://x", "video_id": "b", "split": "train", "id": 1}],
         "sentences": [{"caption": "a cat", "video_id": "a", "sen_id": 0},
                       {"caption": "a dog", "video_id": "b", "sen_id": 1}]},
        'media = "{video_id}.png"', ""),
    "VATEX": (
        [{"videoID": "a", "enCap": ["a cat"], "chCap": ["一只猫"]},
         {"videoID": "b", "enCap": ["a dog"], "chCap": ["一只狗"]}],
        'media = "{videoID}.png"\ndataset = "en"', ""),
    "ActivityNet Captions": (
        {"a": {"duration": 9.5, "timestamps": [[0, 4.5]], "sentences": ["a cat"]},
         "b": {"duration": 9.5, "timestamps": [[0, 4.5]], "sentences": [" a dog "]}},
        'media = "{media}.png"', ""),
    "ActivityNet database": (
        {"version": "1.3", "taxonomy": [{"nodeName": "x"}], "database": {
            "a": {"subset": "training", "annotations": [{"segment": [0], "sentence": "a cat"}]},
            "b": {"subset": "training", "annotations": [{"segment": [0], "sentence": "a dog"}]}}},
        'media = "{media}.png"', ""),
    "TextCaps": (
        {"dataset_type": "train", "dataset_name": "textcaps", "data": [
            {"caption_id": 1, "caption_str": "a cat", "caption_tokens": ["a"], "image_id": "x",
             "image_name": "a.png", "image_classes": ["Cat"], "set_name": "train",
             "reference_strs": ["a cat"], "reference_tokens": [["a"]]},
            {"caption_id": 2, "caption_str": "a dog", "image_id": "y", "image_name": "b.png",
             "set_name": "train", "reference_strs": ["a dog"]}]},
        "", ""),
    "Flickr30k by datasets": (
        [{"image": {"bytes": None, "path": "a.png"}, "caption": ["a cat"], "sentids": ["0"],
          "split": "train", "img_id": "0", "filename": "a.png"},
         {"image": {"bytes": None, "path": "b.png"}, "caption": ["a dog"], "split": "train",
          "filename": "b.png"}],
        "", ""),
    "a mapping of objects": (
        {"info": INFO, "a.png": {"caption": "a cat"}, "b.png": {"captions": ["a dog"]}}, "", ""),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_known_data_sets(make: Make, form: str) -> None:
    content, recipe, names = FORMS[form]
    subset = make(content, recipe, media_names=names)
    said = {path.rpartition("/")[2]: captions for path, captions in _captions(subset).items()}
    assert said == {"a.png": ["a cat"], "b.png": ["a dog"]}
    assert _counted(subset) == 0


AIHUB = {
    "info": {"description": "Video understanding corpus, release 2"},
    "description": {"title": "캡션 데이터", "text": "release 2"},
    "licenses": [{"name": "x", "description": "a licence"}],
    "categories": [{"name": "walk", "description": "somebody walks"}],
    "video": {"file_name": "a.png", "fps": 30},
}


@pytest.mark.parametrize(
    ("annotation", "recipe"),
    [
        ({"caption": "걷는다"}, ""),
        ({"caption_ko": "걷는다"}, 'dataset = "ko"'),
        ({"description_kr": "걷는다", "description_en": "walks"}, 'dataset = "ko"'),
        ({"description_kr": "걷는다", "title": "x"}, ""),
        ({"captions": [{"text": "걷는다", "start": 1}]}, ""),
        ({"caption": {"ko": "걷는다", "en": "walks"}}, 'dataset = "ko"'),
        ({"description_kr": "걷는다", "text": "OCR"}, 'caption = "annotation.description_kr"'),
        ({"설명문": "걷는다"}, 'caption = "annotation.설명문"'),
        ({"Description KR": "걷는다", "text": "x"}, 'caption = "annotation.description_kr"'),
    ],
)
def test_blocks_about_the_data_set_are_no_captions(
    make: Make, annotation: dict[str, Any], recipe: str
) -> None:
    """AI-Hub's labels: one object a video, with blocks that describe the corpus."""
    subset = make({"labels/a.json": {**AIHUB, "annotation": annotation}}, recipe)
    assert _captions(subset) == {"a.png": ["걷는다"]}


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"caption": "a", "description": "b"}, ("caption", "description")),
        ({"description": "corpus, release 2", "annotation": {"caption": "a cat"}},
         ("annotation.caption", "description")),
        ({"annotation": {"caption": "a", "description": "b"}}, ("annotation.caption",)),
        ({"sentence": "a", "captions": ["b"]}, ("captions", "sentence")),
        ({"text": "a", "raw": "b"}, ("raw", "text")),
        ({"sentences": [{"raw": "a", "caption": "b"}]}, ("sentences.raw", "sentences.caption")),
        ({"caption": {"ko": "가", "en": "a"}}, ("ko", "en")),
        ({"caption_ko": "가", "caption_en": "a"}, ("ko", "en")),
        ({"objects": [{"description": "a cup"}], "scene": {"description": "a room"}},
         ("objects.description", "scene.description")),
    ],
)  # fmt: skip
def test_several_candidates_are_refused_with_their_names(
    make: Make, record: dict[str, Any], names: tuple[str, ...]
) -> None:
    said = _refused(make, [{"image": "a.png", **record}])
    assert "c.json item 1: " in said
    for name in names:
        assert name in said, said
    assert "in [source]" in said


def test_a_candidate_that_only_repeats_another_is_no_choice(make: Make) -> None:
    lines = [{"image": "a.png", "caption": "a cat", "captions": ["a cat", "one cat"]},
             {"image": "b.png", "caption": "a dog", "objects": [{"description": "a bone"}]},
             {"image": "c.png", "caption": "x", "caption_1": "y"}]  # fmt: skip
    assert _captions(make(lines)) == {
        "a.png": ["a cat", "one cat"], "b.png": ["a dog"], "c.png": ["x", "y"],
    }  # fmt: skip


def test_media_that_may_be_meant_are_refused_or_chosen(make: Make) -> None:
    record = [{"image": "a.png", "video": "v.mp4", "caption": "a cat"}]
    said = _refused(make, record)
    assert "several keys may name the medium (image, video)" in said
    assert _captions(make(record, 'media = "image"')) == {"a.png": ["a cat"]}
    same = [{"path": "/home/x/a.png", "file_name": "a.png", "caption": "a cat", "video_id": 5}]
    assert _captions(make(same)) == {"a.png": ["a cat"]}


# -- splits and languages ----------------------------------------------------------------------


def _records(key: str = "split", *values: str) -> list[dict[str, Any]]:
    names = ("a", "b", "c")
    return [
        {"filename": f"{name}.png", key: value, "sentences": [{"raw": f"a {name}"}]}
        for name, value in zip(names, values or ("train", "val", "test"), strict=False)
    ]


@pytest.mark.parametrize("key", ["split", "subset", "set_name", "Split"])
def test_several_splits_are_refused_with_their_counts(make: Make, key: str) -> None:
    said = _refused(make, {"dataset": "mini", "images": _records(key)})
    assert "several splits (train 1, val 1, test 1)" in said
    assert 'split = ["train"]' in said


@pytest.mark.parametrize(
    ("content", "recipe", "built"),
    [
        (_records(), 'split = ["train"]', ["a.png"]),
        (_records("subset", "training", "validation", "testing"), 'split = "val"', ["b.png"]),
        (_records("split", "train", "restval", "test"), 'split = ["train", "restval"]',
         ["a.png", "b.png"]),
        ({"train": _records()[:1], "val": [{"image": "b.png", "caption": "x"}]},
         'split = "train"', ["a.png"]),
        ([{"image": "a.png", "caption": "x", "part": "1"},
          {"image": "b.png", "caption": "y", "part": "2"}],
         'split_key = "part"\nsplit = ["2"]', ["b.png"]),
    ],
)  # fmt: skip
def test_the_recipe_chooses_a_split_and_the_others_are_counted(
    make: Make, content: Any, recipe: str, built: list[str]
) -> None:
    subset = make(content, recipe)
    assert sorted(_captions(subset)) == built
    total = 2 if "part" in recipe or isinstance(content, dict) else 3
    assert len(built) + _counted(subset) == total
    assert all(reason.startswith("split ") for reason in subset.manifest["source_skipped"])


def test_splits_of_several_files_and_of_parts_of_one(make: Make) -> None:
    first, second = ([{"image": f"{name}.png", "caption": name}] for name in "ab")
    files = {"labels/1.json": {"dataset_type": "train", "data": first},
             "labels/2.json": {"dataset_type": "val", "data": second}}  # fmt: skip
    assert "several splits (train 1, val 1)" in _refused(make, files)
    parts = {"train": {"a.png": "x"}, "test": {"b.png": "y"}}
    assert "several splits (train 1, test 1)" in _refused(make, parts)
    some = [
        {"image": "a.png", "caption": "x", "split": "train"},
        {"image": "b.png", "caption": "y"},
    ]
    assert "train 1, none named 1" in _refused(make, some)
    one = [{"image": "a.png", "caption": "x", "split": "test"}]
    assert _captions(make(one)) == {"a.png": ["x"]}  # one split alone needs no choice


def test_several_languages_are_chosen_or_refused(make: Make) -> None:
    lines = [{"image": "a.png", "caption": "a cat", "language": "English"},
             {"image": "a.png", "caption": "고양이", "language": "ko"},
             {"image": "b.png", "caption": "개", "language": "Korean"}]  # fmt: skip
    assert "several languages (ko 2, en 1)" in _refused(make, lines)
    korean = make(lines, 'dataset = "ko"')
    assert _captions(korean) == {"a.png": ["고양이"], "b.png": ["개"]}
    assert korean.manifest["source_skipped"] == {"language en: the recipe chooses another": 1}
    both = make(lines, 'languages = ["en", "ko"]')
    assert len(both) == 3
    inside = [{"image": "a.png", "captions": [{"text": "a cat", "language": "en"},
                                              {"text": "고양이", "language": "ko"}]}]  # fmt: skip
    assert _captions(make(inside, 'dataset = "en"')) == {"a.png": ["a cat"]}


def test_what_a_check_shows_of_choices(make: Make, tmp_path: Path) -> None:
    from datasets_mm.profile.check import find_problems, find_remarks
    from datasets_mm.profile.describe import DescribeOptions, describe

    make([*_records(), {"image": ["a.png", "b.png"], "caption": "two"}, "no object"],
         'split = "train"')  # fmt: skip
    profile = describe(
        DescribeOptions("own", tmp_path / "cache", tmp_path / "data"), lambda *_: None
    )
    found = {one.message: one.count for one in find_problems(profile)}
    assert found["left out of the subset: line is not an object"] == 1
    assert any("several media" in what for what in found)
    assert not any("split" in what for what in found)
    assert any("split val: the recipe chooses another" in said for said in find_remarks(profile))


# -- nothing is lost ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "built", "counted"),
    [
        ([{"image": ["a.png"], "caption": "x"}], 1, 0),
        ([{"image": ["a.png", "b.png"], "caption": "x"}, {"image": "c.png", "caption": "y"}], 1, 1),
        ([{"image": True, "caption": "x"}, {"image": "c.png", "caption": "y"}], 1, 1),
        ([{"image": "a.png", "caption": {"a": 1}}, {"image": "c.png", "caption": "y"}], 1, 1),
        ([{"image": "a.png", "caption": [["x"]]}, {"image": "c.png", "caption": "y"}], 1, 1),
        ([{"image": "a.png", "caption": False}, {"image": "c.png", "caption": "y"}], 1, 1),
        ([{"image": "a.png", "caption": False, "description": "corpus"},
          {"image": "c.png", "caption": "y"}], 1, 1),
        ([{"image": "a.png", "caption": []}, 5, None, [], {"image": "c.png", "caption": "y"}],
         1, 4),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, 3],
          "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": 9, "caption": "y"}, "z"]},
         1, 4),
        ({"a.png": "x", "year": "2014", "info": {"description": "y"}}, 1, 1),
    ],
)  # fmt: skip
def test_every_object_is_built_or_counted(
    make: Make, content: Any, built: int, counted: int
) -> None:
    subset = make(content)
    assert (len(subset), _counted(subset)) == (built, counted), subset.manifest["source_skipped"]


def test_oddities_of_files_are_told(make: Make) -> None:
    lines = '{"image": "a.png", "caption": "x"}\n{"image": "b.png", "caption": "y"}\n'
    assert len(make(lines)) == 2  # JSON lines called .json
    twice = make('{"a.png": "x", "a.png": "y", "b.png": "z"}')
    assert any("have a key twice" in said for said in twice.manifest["notices"])
    alike = make([{"image": f"{n}.png", "caption": "release 2"} for n in "abc"])
    assert any("all have the same caption" in said for said in alike.manifest["notices"])
    number = make([{"image": "a.png", "caption": 5}])
    assert any("are numbers" in said for said in number.manifest["notices"])
    array = make('[{"image": "a.png", "caption": "x"}]', name="c.jsonl")
    assert len(array) == 1


def test_tables_of_flickr(make: Make) -> None:
    """Kaggle's results.csv of Flickr30k (`| `, one row short of a sign), and the .token file."""
    table = ("image_name| comment_number| comment\na.png| 0| A man , in a hat .\n"
             "b.png| 4   A dog runs .\nc.png| 0| A cat .\n")  # fmt: skip
    subset = make(table, name="results.csv")
    assert _captions(subset) == {"a.png": ["A man , in a hat ."], "c.png": ["A cat ."]}
    assert subset.manifest["source_examples"] == {
        next(iter(subset.manifest["source_skipped"])): ["results.csv row 3"]
    }
    token = make("a.png#0\ta cat , red\na.png#1\tone cat\nb.png#0\ta dog\n", name="f.token")
    assert _captions(token) == {"a.png": ["a cat , red", "one cat"], "b.png": ["a dog"]}
    text = make('image,caption\na.png,"a cat, red"\n', name="captions.txt")
    assert _captions(text) == {"a.png": ["a cat, red"]}
    listed = make("filename,raw,split\n\"a.png\",\"['a cat', 'one']\",train\n", name="r.csv")
    assert _captions(listed) == {"a.png": ["a cat", "one"]}


def test_msvd_names_its_clips_by_a_template(make: Make) -> None:
    table = "VideoID,Start,End,Language,Description\nx,1,5,English,a cat\nx,1,5,German,Katze\n"
    recipe = 'media = "{VideoID}_{Start}_{End}.avi"\ndataset = "en"'
    subset = make(table, recipe, name="msvd.csv", media_names="x_1_5.avi")
    assert _captions(subset) == {"x_1_5.avi": ["a cat"]}
    assert subset.manifest["source_skipped"] == {"language de: the recipe chooses another": 1}


def test_two_columns_of_one_name_are_refused(make: Make) -> None:
    said = _refused(make, "image,Caption,caption \na.png,x,y\n", name="c.csv")
    assert "c.csv has 2 columns 'caption'" in said


def test_keys_of_captions_belong_to_their_adapter(own_recipes: Callable[[str, str], Path]) -> None:
    path = own_recipes(
        "mine",
        'schema = 1\nname = "mine"\ntitle = "t"\n[source]\nadapter = "jsonl"\nuri = ["x.jsonl"]\n'
        'caption = "a.b"\n',
    )
    with pytest.raises(RecipeError, match="caption: only the adapter captions has such keys"):
        read(path)


def test_forms_of_public_threads(make: Make) -> None:
    """Labels as people have posted them; a key that nothing tells from others is the recipe's."""
    named = [{"video_name": "a.png", "version": 1, "trigger_info": [
        {"timestamps": ["0:00"], "trigger_action": "여자가 사진을 찍는다."}]}]  # fmt: skip
    assert "1 no caption" in _refused(make, named)
    chosen = make(named, 'caption = "trigger_info.trigger_action"')
    assert _captions(chosen) == {"a.png": ["여자가 사진을 찍는다."]}
    golden = '{"video_id": "a", "golden_caption": ["a cat"]}\n'
    recipe = 'media = "{video_id}.png"\ncaption = "golden_caption"'
    assert _captions(make(golden, recipe, name="g.jsonl")) == {"a.png": ["a cat"]}
    instances = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1}],
                 "annotations": [{"image_id": 1, "id": 1, "bbox": [1, 2, 3, 4]}]}  # fmt: skip
    assert "1 no caption" in _refused(make, instances)
    several = [
        {"images": ["a.png", "b.png"], "caption": "x"},
        {"images": ["c.png"], "caption": "y"},
    ]
    assert _captions(make(several)) == {"c.png": ["y"]}
    stem = make({"a": "a cat", "b": "a dog"})  # keys without the ending of the files
    assert len(stem) == 2
    assert any("an ending that the data do not name" in said for said in stem.manifest["notices"])
    labelme = [{"imagePath": "..\\media\\a.png", "caption": "x"}]
    assert len(make(labelme)) == 1  # it leads out of the root and back in


def test_videos_without_their_ending_are_videos(make: Make) -> None:
    from engines.captioning.data import captions

    msrvtt = {"videos": [{"video_id": "video0", "split": "train", "id": 0}],
              "sentences": [{"video_id": "video0", "caption": "a cat", "sen_id": 0}]}  # fmt: skip
    found = captions.read_captions(make(msrvtt, media_names="video0.MP4"))
    assert (found.paths, found.videos) == (["video0"], True)


# -- what stands in the place of a caption ------------------------------------------------------


@pytest.mark.parametrize(
    ("stand_in", "reason"),
    [
        ({"caption": "", "text": "EXIT"}, "text is not taken in its place"),
        ({"caption": None, "description": "release 2"}, "description is not taken in its place"),
        ({"annotation": {"caption": "b"}}, "annotation.caption is not taken in its place"),
        ({"shapes": [{"label": "ear", "description": "the left one"}]},
         "shapes.description is about parts"),
        ({"predictions": [{"result": {"text": "a model's"}}]}, "predictions.result.text is about"),
        ({"caption": "b", "is_rejected": True}, "label is marked is_rejected"),
        ({"caption": ["a", "dog", "."]}, "caption is a list of tokens"),
        ({"caption": [{"text": "b", "was_cancelled": True}]}, "no caption"),
    ],
)  # fmt: skip
def test_nothing_stands_in_for_a_caption(make: Make, stand_in: dict[str, Any], reason: str) -> None:
    subset = make([{"image": "a.png", "caption": "a cat"}, {"image": "b.png", **stand_in}])
    assert _captions(subset) == {"a.png": ["a cat"]}
    assert [reason in said for said in subset.manifest["source_skipped"]] == [True]


def test_captions_under_different_keys_are_refused_with_keys_that_exist(make: Make) -> None:
    lines = [{"image": "a.png", "annotation": {"description_kr": "고양이"}},
             {"image": "b.png", "scene": {"caption": "개"}},
             {"image": "c.png", "annotation": {"description_kr": "새"}}]  # fmt: skip
    said = _refused(make, lines, 'dataset = "ko"')
    assert "(annotation.description_kr 2, scene.caption 1)" in said
    recipe = said.partition("read all with ")[2].partition(" in [source]")[0]
    assert len(make(lines, f'dataset = "ko"\n{recipe}')) == 3


def test_the_key_that_a_refusal_proposes_can_be_used(make: Make) -> None:
    """AI-Hub's Korean COCO: `captions` and `caption_ko`, and no key `caption`."""
    lines = [{"file_path": f"{n}.png", "captions": ["x"], "caption_ko": ["가"]} for n in "ab"]
    said = _refused(make, lines)
    assert "several keys may hold the caption (caption_ko, captions)" in said
    chosen = make(lines, said.partition("choose with ")[2].partition(" in [source]")[0])
    assert _captions(chosen) == {"a.png": ["가"], "b.png": ["가"]}


def test_prompts_and_tokens_are_told(make: Make) -> None:
    """LLaVA's turns under one key, and ViLBERT's captions, which are split into words."""
    turns = [{"image": f"{n}.png", "conversations": [
        {"from": "human", "value": "<image> Describe it."}, {"from": "gpt", "value": n}]}
        for n in "abc"]  # fmt: skip
    prompt = make(turns, 'caption = "conversations.value"')
    assert any("3 of 3 media share one caption" in said for said in prompt.manifest["notices"])
    names = [{"image": f"{n}.png", "caption": ["cat", "kitty", n]} for n in "abc"]
    told = make(names)
    assert len(told) == 3
    assert any("lists of single words" in said for said in told.manifest["notices"])
    names[0]["caption"] = ["a", "cat", ":", "grey"]
    said = _refused(make, names)
    assert "no record is left (3 caption is a list of tokens" in said


def test_lists_as_text_keep_their_elements(make: Make) -> None:
    """NumPy prints no commas, and Python joins the texts of such a list to one."""
    table = "image,caption\na.png,\"['a cat' 'it\\'s one']\"\nb.png,\"['a dog'\n 'a bone']\"\n"
    assert _captions(make(table, name="n.csv")) == {
        "a.png": ["a cat", "it's one"], "b.png": ["a dog", "a bone"],
    }  # fmt: skip


def test_flickr_numbers_in_any_file_mean_one_medium(make: Make) -> None:
    table = "image,caption\na.png#0,a cat\na.png#1,one cat\nb.png,a dog #1\n"
    assert _captions(make(table, name="n.csv")) == {
        "a.png": ["a cat", "one cat"], "b.png": ["a dog #1"],
    }  # fmt: skip


def test_a_label_file_names_its_video_by_its_own_name(make: Make) -> None:
    """AI-Hub 71849: no key names the medium; the video has the label file's name."""
    labels = {
        f"labels/{name}.json": {
            "annotation": {"description_kr": f"{name} 도시의 밤", "description_en": "a city"}
        }
        for name in ("K_0001", "K{2}")
    }
    more = 'media = "{stem}.mp4"\ncaption = "annotation.description_kr"\ndataset = "ko"'
    found = make(labels, more, media_names="K_0001.mp4 K{2}.mp4")
    assert _captions(found) == {"K_0001.mp4": ["K_0001 도시의 밤"], "K{2}.mp4": ["K{2} 도시의 밤"]}


@pytest.mark.parametrize(("part", "rows"), [("train", 865), ("val", 97)])
def test_the_studys_clips_are_read_as_they_lie(tmp_path: Path, part: str, rows: int) -> None:
    folder = tmp_path / "data" / part
    for kind in ("labels", "videos"):
        (folder / kind).mkdir(parents=True)
    label = {"annotation": {"description_kr": "밤의 도시", "description_en": "a city at night"}}
    (folder / "labels" / "clip_7.json").write_text(json.dumps(label, ensure_ascii=False))
    (folder / "videos" / "clip_7.mp4").touch()
    found = build(f"siglip_study_{part}", tmp_path / "cache", tmp_path / "data")
    assert _captions(found) == {"clip_7.mp4": ["밤의 도시"]}
    assert any(f"{rows:,}" in notice for notice in found.manifest["notices"]), "a part of the clips"


AIHUB_LABELS: dict[str, dict[str, Any]] = {
    "aihub_71849": {
        "filename": "clip_7.mp4",
        "caption": {"korean": "밤의 도시", "english": "a city at night"},
        "category": {"main": "도시", "sub": "야경"},
        "metadata": {"fps": 30, "description": "a corpus"},
        "annotations": [{"object": "tower", "bbox": [0, 0, 1, 1]}],
    },
    "aihub_71492": {
        "video_name": "clip_7.mp4",
        "trigger_info": [
            {"timestamps": [0.0, 2.5], "trigger_action": "문을 연다"},
            {"timestamps": [2.5, 4.0], "trigger_action": "걸어 나간다"},
        ],
        "bbox": [[0, 0, 5, 5]],
    },
}


@pytest.mark.parametrize(
    ("name", "captions"),
    [("aihub_71849", ["밤의 도시"]), ("aihub_71492", ["문을 연다", "걸어 나간다"])],
)
def test_forms_of_aihub_have_recipes(tmp_path: Path, name: str, captions: list[str]) -> None:
    for part in ("train", "val"):
        for kind in ("labels", "videos"):
            (tmp_path / "data" / part / kind).mkdir(parents=True)
        label = json.dumps(AIHUB_LABELS[name], ensure_ascii=False)
        (tmp_path / "data" / part / "labels" / "a.json").write_text(label)
        (tmp_path / "data" / part / "videos" / "clip_7.mp4").touch()
        found = build(f"{name}_{part}", tmp_path / "cache", tmp_path / "data")
        assert _captions(found) == {"clip_7.mp4": captions}
        assert found.records["dataset_id"].to_pylist() == ["ko"]


PAIR = {"annotation": {"description_kr": "밤의 도시", "description_en": "a city at night"}}
PAIRED = 'media = "{stem}.png"\ncaption = "annotation.description_kr"\ndataset = "ko"'


def test_captions_of_several_languages_are_records_of_their_own(make: Make) -> None:
    keys = ["annotation.description_kr", "annotation.description_en"]
    more = f'media = "{{stem}}.png"\ncaption = {json.dumps(keys)}\nlanguages = ["ko", "en"]'
    found = make({"labels/a.json": PAIR, "labels/b.json": PAIR}, more)
    rows = [(r["image_path"], r["dataset_id"], r["answer"]) for r in found.records.to_pylist()]
    assert sorted(rows) == [
        ("a.png", "en", ["a city at night"]), ("a.png", "ko", ["밤의 도시"]),
        ("b.png", "en", ["a city at night"]), ("b.png", "ko", ["밤의 도시"]),
    ]  # fmt: skip


def test_labels_without_the_caption_key_are_refused_with_the_keys_that_they_have(
    make: Make,
) -> None:
    first = {"annotation": {"description_ko": "밤", "id": 7}}
    second = {"annotation": {"description_ko": "낮"}}
    words = _refused(make, {"labels/a.json": first, "labels/b.json": second}, PAIRED)
    request = "under annotation.description_kr and a medium under {stem}.png"
    assert f"none of 2 labels has a caption {request} (2 no caption)" in words
    assert "their keys are annotation.description_ko, annotation.id; choose with caption" in words


def test_pairs_by_name_that_do_not_fit_are_told(make: Make) -> None:
    """Two labels for one clip, a label without its medium, a medium without its label, no text."""
    empty = {"annotation": {"description_kr": "  "}}
    long = {"annotation": {"description_kr": "밤의 도시가 " * 1500}}
    labels = {
        "labels/a.json": PAIR, "labels/A.json": long, "labels/b.json": PAIR, "labels/c.json": empty,
    }  # fmt: skip
    found = make(labels, PAIRED, media_names="a.png A.png d.png")
    notices = "\n".join(found.manifest["notices"])
    assert "1 files of media have no label (d.png)" in notices or "d.png" in notices
    assert "media have several label files" in notices
    assert found.manifest["source_skipped"] == {"no caption": 1}
    assert _captions(found)["A.png"][0].endswith("도시가")
    assert len(_captions(found)["A.png"][0]) > 10_000
