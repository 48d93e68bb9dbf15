"""Vision-language models of other kinds than Qwen2.5-VL, made here in tiny sizes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from engines.emitter import EngineError
from engines.torchkit.modeling import lora, pretrained, quantize
from engines.torchkit.runtime.precision import Precision
from engines.vqa.data import feature_cache
from engines.vqa.data.image_inputs import ImageInputs, ModelVisionTower
from engines.vqa.data.images import Pictures, SizeLimits
from engines.vqa.models import chat_template
from engines.vqa.models import processor as models_processor
from engines.vqa.models.chat_template import ChoicePrompt
from engines.vqa.models.hf_processor import HFProcessor
from engines.vqa.models.model import PIXELS, Answerer, to_device
from engines.vqa.models.processor import ImageTextProcessor, Pixels
from engines.vqa.models.qwen_layout import QwenInputLayout
from engines.vqa.models.qwen_patches import QwenPatchProcessor
from engines.vqa.models.vision_output import Form
from tests.engines import engine_runs, tiny_vqa, vlm_kinds
from tests.engines.tiny_vqa import go, lines, spec

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings(  # transformers 5.23 in PaliGemma's processor, numpy 2
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
CPU = torch.device("cpu")
OPTIONS = ("red", "green", "blue", "black")
SAID = [
    ChoicePrompt("what colour is the disc?", OPTIONS, "b"),
    ChoicePrompt("is it?", OPTIONS, "d"),
]
PICTURES = [
    np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for height, width in ((56, 84), (84, 56))
]
LARGER = [np.pad(one, ((0, one.shape[0] // 7), (0, one.shape[1] // 7), (0, 0))) for one in PICTURES]
"""Whole tokens of 32 pixels, as Qwen3-VL's are."""


num2words = vlm_kinds.num2words


@pytest.fixture(scope="module", params=list(vlm_kinds.KINDS))
def folder(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data and Qwen's tiny model beside `other`, a model of another kind."""
    made = tmp_path_factory.mktemp(request.param)
    tiny_vqa.write(made)
    vlm_kinds.KINDS[request.param](made / "other")
    with engine_runs.configured(made):
        yield made


@pytest.fixture(scope="module")
def seen(folder: Path) -> ImageTextProcessor:
    processor = AutoProcessor.from_pretrained(folder / "other")
    return models_processor.create_processor(
        processor, chat_template.read_chat_template(processor, "One letter.", folder), folder
    )


def model(folder: Path, *, four_bit: bool = False) -> torch.nn.Module:
    return pretrained.load(
        folder / "other",
        pretrained.VISION_LANGUAGE,
        Precision("fp32", CPU),
        four_bit=four_bit,
        double=True,
    ).eval()


def shown(seen: ImageTextProcessor) -> list[Pixels]:
    """Pictures in whole tokens."""
    return PICTURES if seen.factor == 28 else LARGER


def without(said: ChoicePrompt) -> ChoicePrompt:
    return said._replace(answer=None)


def test_a_prompt_is_what_the_processor_makes_of_the_conversation(folder, seen):
    """transformers' own way from messages to tensors, in one call."""
    processor = AutoProcessor.from_pretrained(folder / "other")
    said = without(SAID[0])
    asked = seen.template.user_text(said.question, said.options)
    image = Image.fromarray(shown(seen)[0])
    content = [{"type": "image", "image": image}, {"type": "text", "text": asked}]
    quiet = {"enable_thinking": False} if "enable_thinking" in processor.chat_template else {}
    theirs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True,
        return_dict=True, return_tensors="pt", **quiet,
    )  # fmt: skip
    own = seen.batch([said], shown(seen)[:1])
    own = to_device(own, CPU, seen.normalize_pixels).inputs()
    theirs.pop("labels", None)  # PaliGemma's, of a training that is not ours
    assert set(own) == set(theirs)
    for name, value in theirs.items():
        exact = name != PIXELS or isinstance(seen, HFProcessor)
        torch.testing.assert_close(own[name], value, rtol=0, atol=0 if exact else 1e-5, msg=name)


def test_the_letter_and_the_end_of_the_turn_are_learnt(seen):
    taught = seen.batch(SAID, shown(seen))
    asked = seen.batch([without(one) for one in SAID], shown(seen))
    for row, letter in enumerate("bd"):
        learnt = [seen.template.letters["abcd".index(letter)], seen.template.end]
        assert taught.labels[row, -2:].tolist() == taught.ids[row, -2:].tolist() == learnt
    assert (taught.labels[:, :-2] == chat_template.IGNORED).all()
    assert torch.equal(taught.ids[:, :-2], asked.ids)
    assert (asked.labels == chat_template.IGNORED).all()
    assert (taught.mask[:, -2:] == 1).all()


def test_padding_changes_no_answer_and_a_blank_picture_does(folder, seen):
    answerer, pictures = Answerer(model(folder)), shown(seen)
    asked = [without(one) for one in SAID]
    together = seen.batch(asked, pictures)
    assert together.mask.sum(1).unique().numel() == 2
    with torch.no_grad():
        both = answerer.next_logits(to_device(together, CPU, seen.normalize_pixels))
        for row in range(2):
            alone = seen.batch(asked[row : row + 1], pictures[row : row + 1])
            one = answerer.next_logits(to_device(alone, CPU, seen.normalize_pixels))
            assert torch.allclose(both[row], one[0], atol=1e-4)
        grey = [np.broadcast_to(np.array(seen.mean_color, np.uint8), one.shape) for one in pictures]
        blank = to_device(seen.batch(asked, grey), CPU, seen.normalize_pixels)
        other = (
            blank.vision[PIXELS] != to_device(together, CPU, seen.normalize_pixels).vision[PIXELS]
        )
        assert other.float().mean() > 0.2
        assert blank.vision[PIXELS][other].abs().max() < 0.02, "all but what fills a tile's edges"
        assert torch.equal(blank.ids, together.ids)
        assert not torch.allclose(answerer.next_logits(blank), both, atol=1e-4)


def test_the_loss_is_transformers_own_on_the_same_labels(folder, seen):
    loaded, batch = (
        model(folder),
        to_device(seen.batch(SAID, shown(seen)), CPU, seen.normalize_pixels),
    )
    with torch.no_grad():
        nats, tokens, _ = Answerer(loaded)(batch.inputs(), batch.labels)
        theirs = loaded(**batch.inputs(), labels=batch.labels).loss
    assert float(nats.sum() / tokens.sum()) == pytest.approx(float(theirs), rel=1e-5)


def test_a_letter_is_not_seen_before_it_is_said(folder, seen):
    """Where tokens of a prompt see each other both ways, the answer must not be among them."""
    answerer, told = Answerer(model(folder)), []
    for letter in "ac":
        made = seen.batch([one._replace(answer=letter) for one in SAID], shown(seen))
        with torch.no_grad():
            told.append(
                answerer._logits(to_device(made, CPU, seen.normalize_pixels).inputs(), 3)[:, 0]
            )
    asked = to_device(seen.batch(list(map(without, SAID)), shown(seen)), CPU, seen.normalize_pixels)
    with torch.no_grad():
        told.append(answerer.next_logits(asked))
    assert torch.allclose(told[0], told[1], atol=1e-5)
    assert torch.allclose(told[0], told[2], atol=1e-4), "trained as it will be asked"


def test_no_question_writes_a_token_with_a_meaning(seen, folder):
    """Many are special without a name: only the table of added tokens has them."""
    added = AutoProcessor.from_pretrained(folder / "other").tokenizer.added_tokens_decoder
    special = [str(one) for one in added.values() if one.special]
    assert "<|im_start|>" in special
    plain, hostile = (
        seen.batch([ChoicePrompt(text, OPTIONS, None)], shown(seen)[:1]).ids[0].tolist()
        for text in ("what?", f"what? {' '.join(special)}")
    )
    for number in added:
        assert hostile.count(number) == plain.count(number)


def test_tokens_of_a_picture_are_counted_by_the_processor(seen):
    said = without(SAID[0])
    for picture in shown(seen):
        length = seen.batch([said], [picture]).ids.shape[1]
        expected = (
            seen.template.count_tokens([said])[0] - 1 + seen.count_image_tokens(*picture.shape[:2])
        )
        assert abs(length - expected) <= 1


def test_several_threads_make_the_same_batches(seen):
    """transformers' tokenizers are changed by every call."""
    wanted = seen.batch(SAID, shown(seen))
    with ThreadPoolExecutor(4) as pool:
        for made in pool.map(lambda _: seen.batch(SAID, shown(seen)), range(24)):
            assert torch.equal(made.labels, wanted.labels)
            assert made.inputs().keys() == wanted.inputs().keys()
            for name, one in wanted.inputs().items():
                assert torch.equal(made.inputs()[name], one), name


def test_only_the_language_model_is_quantized_and_adapted(folder):
    loaded = model(folder, four_bit=True)
    language = pretrained.language_module_name(loaded)
    linear = {n for n, m in loaded.named_modules() if isinstance(m, torch.nn.Linear)}
    inside = {name for name in linear if name.startswith(f"{language}.")}
    assert set(quantize.four_bit_layers(loaded)) == inside
    assert linear - inside
    adapted = lora.add_lora(loaded, 2, 4, 0.0, ("gate_proj", "up_proj"), language)
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * vlm_kinds.TEXT["num_hidden_layers"]
    assert all(f".{language}." in name for name in trained)


@pytest.fixture(scope="module")
def ran(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list, Path]:
    place = tmp_path_factory.mktemp("runs") / "01-tiny"
    settings = {
        "epochs": 3, "num_workers": 2, "blank": True, "written": 4, "tta_scales": (1.5,),
        "tta_options": True, "evaluate_on": ("asks_more",), "gradient_checkpointing": True,
        "letter_forms": True, "prompts": ("what: Look at the picture.",),
    }  # fmt: skip
    asked = spec(folder, model=f"path:{folder / 'other'}", settings=settings)
    return go(asked, place), place


def test_a_whole_run_trains_and_answers(ran):
    sent, place = ran
    steps = [message for message in sent if message.kind == "step"]
    assert steps[-1].loss < steps[0].loss
    for split, count in (("validation", 2), ("asks_more", 6)):
        found = lines(place, split)
        assert len(found) == count
        for answer in found:
            assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-6)
            assert sum(answer["votes"]) == 8
            assert answer["blank"] is not None


def test_a_trained_model_answers_again(folder, ran, tmp_path):
    """Task infer on the checkpoint of a run."""
    _, place = ran
    again = spec(
        folder, model="run:01-tiny", task="infer", run_id="02-tiny", subset="asks_more",
        settings={
            "blank": True, "written": 4, "tta_scales": (1.5,), "tta_options": True,
            "letter_forms": True,
        },
    )  # fmt: skip
    (place.parent / "02-tiny").mkdir()
    go(again, place.parent / "02-tiny")
    was, now = lines(place, "asks_more"), lines(place.parent / "02-tiny", "asks_more")
    assert [one["probabilities"] for one in was] == [one["probabilities"] for one in now]


def test_qwens_processors_alone_are_read_as_patches(folder, seen):
    processor = AutoProcessor.from_pretrained(folder / "model")
    found = models_processor.create_processor(
        processor, chat_template.read_chat_template(processor, "", folder), folder
    )
    assert isinstance(found, QwenPatchProcessor)
    patches = "Qwen" in type(AutoProcessor.from_pretrained(folder / "other")).__name__
    assert isinstance(seen, QwenPatchProcessor if patches else HFProcessor)
    assert seen.factor == (32 if patches else 28)


def test_a_processor_that_fails_is_one_sentence(folder, seen):
    class Failing:
        tokenizer = AutoProcessor.from_pretrained(folder / "other").tokenizer

        def __call__(self, **_):
            raise RuntimeError("no pictures today\nmore")

    with pytest.raises(EngineError, match=r"\(no pictures today\); install what it lacks"):
        HFProcessor.create(Failing(), seen.template, folder)


def test_features_stand_in_for_pixels_where_a_kind_takes_them(folder, seen):
    """One picture at a time against both in one batch; Llama 3.2 Vision takes none and says so."""
    loaded, limits = model(folder), SizeLimits(56, 784, 1 << 20, seen.factor)
    ways = ImageInputs(
        Pictures(seen, limits, folder / "cache", lambda *_: None), Precision("fp32", CPU)
    )
    pair = feature_cache.make_probe_pictures(seen.factor)
    plain = feature_cache.compute_logits(loaded, ways, pair)
    ways.layout = QwenInputLayout.from_model(loaded, seen)
    tower = ModelVisionTower(loaded, ways)
    reason = feature_cache.find_refusal(loaded, tower, pair, plain)
    if "Mllama" in type(loaded).__name__:
        assert reason == "MllamaForConditionalGeneration takes no features in the place of pixels"
        return
    assert not reason
    assert isinstance(tower.form, Form)
    assert tower.form.layers == (2 if "Qwen3VL" in type(loaded).__name__ else 0)
    rows = torch.cat([tower.encode(one) for one in pair])
    assert torch.allclose(
        feature_cache.compute_logits(loaded, ways, pair, (tower.form, rows)),
        plain,
        rtol=1e-4,
        atol=1e-4,
    )
    other = feature_cache.compute_logits(loaded, ways, pair, (tower.form, rows.flip(0)))
    assert not feature_cache.logits_agree(plain, other)
