"""Models and questions that VQA refuses, most before weights are looked for."""

import json
import shutil

import pytest
from PIL import Image

from engines.emitter import EngineError
from engines.torchkit.modeling import pretrained
from tests.engines import engine_runs, tiny_vqa, vlm_kinds
from tests.engines.tiny_vqa import go, spec

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

folder = engine_runs.subset_fixture(tiny_vqa.write)
num2words = vlm_kinds.num2words
T5 = {"model_type": "t5", "d_model": 32, "num_layers": 1, "vocab_size": 64}
UNFIT = {
    "florence2": ({"vision_config": {}}, "a decoder behind an encoder"),
    "blip-2": ({"vision_config": {}, "text_config": T5}, "a decoder behind an encoder"),
    "chinese_clip": ({"vision_config": {}}, "no image-text-to-text model of transformers"),
    "no-such-kind": ({"vision_config": {}}, "no sound vision-language model"),
    "own-code": ({"vision_config": {}, "auto_map": {"AutoModel": "a.b"}}, "code of its own"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_model_of_another_make_is_one_sentence(folder, tmp_path, kind):
    """No weights in the folder: none are missed."""
    said, sentence = UNFIT[kind]
    place = tmp_path / "other"
    shutil.copytree(folder / "model", place, ignore=shutil.ignore_patterns("*.safetensors"))
    (place / "config.json").write_text(json.dumps({"model_type": kind, **said}))
    with pytest.raises(EngineError, match=sentence) as caught:
        go(spec(folder, model=f"path:{place}"), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_model_without_a_chat_template_is_refused_before_its_weights(folder, tmp_path):
    place = tmp_path / "other"
    shutil.copytree(folder / "model", place, ignore=shutil.ignore_patterns("*.safetensors"))
    (place / "chat_template.jinja").unlink()
    with pytest.raises(EngineError, match="no chat template; take an instruction-tuned model"):
        go(spec(folder, model=f"path:{place}"), tmp_path / "run")


def test_a_prompt_of_a_type_that_no_question_has_is_refused(folder, tmp_path):
    request = spec(folder, settings={"prompts": ("whose: Say who.",)})
    with pytest.raises(
        EngineError, match="prompts: no question is of type 'whose'; there are what"
    ):
        go(request, tmp_path / "run")


def test_a_smaller_picture_may_be_more_tokens(folder, tmp_path):
    """SmolVLM's tiles of 80 x 48: 22 tokens at 112 pixels, 36 at three quarters of it."""
    vlm_kinds.KINDS["smolvlm"](tmp_path / "other")
    wide = tmp_path / "data"
    shutil.copytree(folder / "data", wide)
    for path in (wide / "images").iterdir():
        Image.open(path).resize((80, 48)).save(path)
    settings = {"data_root": str(wide), "long_side": 112, "max_steps": 1}
    asked = spec(folder, model=f"path:{tmp_path / 'other'}", settings=settings)
    sent = go(asked, tmp_path / "01-tiny")
    said = next(m.facts["longest_sample"] for m in sent if m.kind == "plan")
    settings |= {"max_length": int(said.split()[0]), "tta_scales": (0.75,)}
    asked = spec(folder, model=f"path:{tmp_path / 'other'}", settings=settings)
    with pytest.raises(EngineError, match="36 of them its picture's"):
        go(asked, tmp_path / "02-tiny")


def test_a_decoder_alone_passes(folder):
    pretrained.validate_vision_language(folder / "model")
