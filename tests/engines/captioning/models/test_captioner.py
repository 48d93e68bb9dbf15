"""The captioner's parts: 4-bit weights by type, LoRA, spliced prompts, towers, cached features."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from engines.captioning import Params
from engines.captioning.data import media
from engines.captioning.data.media import Frames, TokenizedCaptions, pad_captions
from engines.captioning.evaluation.evaluate import ratio_interval
from engines.captioning.models import llm, nano_model, projectors
from engines.captioning.models.captioner import Captioner, pooled_deviation
from engines.captioning.models.generation import penalize_repetition
from engines.captioning.models.vision import VisionTower
from engines.emitter import EngineError
from engines.model_catalog import ModelPart
from engines.torchkit.data.data_loader import choose_others
from engines.torchkit.data.prefetch import InputPipeline
from engines.torchkit.modeling import lora, quantize
from engines.torchkit.modeling.feature_cache import NoRoomError
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import nano_models
from engines.torchkit.training.early_stopping import best_index
from tests.engines import tiny_captioning as tiny

pytest.importorskip("bitsandbytes")
CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)
SIZES = {"vocabulary": 300, "width": 64, "inner": 128, "layers": 2, "heads": 2,
         "key_value_heads": 1, "steps": 3, "batch": 4, "tokens": 8, "lr": 1e-3,
         "encyclopedia": False}  # fmt: skip
CAPTIONS = ["a red disc", "the green square", "고양이 얼굴", "a cross"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return train(CAPTIONS, root)


def train(captions, root):
    return nano_models.get_or_train_language_model(
        nano_model.build_recipe(captions, SIZES), root, CPU, lambda *_: None
    )


def load(made, **settings):
    params = Params(precision="fp32", lora_rank=4, lora_targets=("q_proj", "v_proj"), **settings)
    return llm.load_model(made.folder, params, Precision("fp32", CPU)), params


def test_a_base_is_trained_once_and_says_what_it_took(made):
    again = train(CAPTIONS, made.folder.parent.parent)
    assert made.fresh
    assert not again.fresh
    assert (again.folder, again.seconds, again.loss) == (made.folder, made.seconds, made.loss)
    other = train(CAPTIONS[:-1], made.folder.parent.parent)
    assert other.folder != made.folder


def test_a_base_that_is_there_is_not_waited_for(tmp_path):
    """While one base is being made, another that is made already is read."""

    def write(folder):
        assert folder.is_dir()
        return 1.0, 1, 1

    def busy(folder):
        assert nano_models.get_or_train_base(tmp_path, "done", write).steps == 1
        return write(folder)

    nano_models.get_or_train_base(tmp_path, "done", write)
    assert nano_models.get_or_train_base(tmp_path, "other", busy).fresh


def test_exactly_the_linear_layers_of_blocks_are_four_bit(made):
    from bitsandbytes.nn.modules import Params4bit

    model, _ = load(made)
    names = quantize.four_bit_layers(model)
    assert len(names) == 2 * 7
    assert all(".layers." in name for name in names)
    for name, parameter in model.named_parameters():
        is_block = ".layers." in name and parameter.ndim == 2 and "norm" not in name
        assert isinstance(parameter, Params4bit) == is_block, name
        assert not parameter.requires_grad
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.uint8
    assert weight.numel() == 64 * 128 // 2
    whole, _ = load(made, quantize="none")
    assert quantize.four_bit_layers(whole) == []
    assert quantize.logical_parameters(model) == sum(p.numel() for p in whole.parameters())
    single, _ = load(made, double_quant=False)
    assert 2 * quantize.weight_bytes(model) < quantize.weight_bytes(whole)
    scales = [m.model.layers[0].mlp.up_proj.weight.quant_state.absmax for m in (single, model)]
    assert [s.dtype for s in scales] == [torch.float32, torch.uint8]
    assert [s.numel() for s in scales] == [64 * 128 // 64] * 2
    with pytest.raises(EngineError, match="lm_head.*is not 4-bit"):
        quantize.check_four_bit(model, lambda _: True)
    with pytest.raises(EngineError, match="is 4-bit and should not be"):
        quantize.check_four_bit(model, lambda name: "q_proj" not in name and "lm_head" not in name)


def test_four_bit_weights_are_near_the_whole_ones(made):
    from bitsandbytes.functional import dequantize_4bit

    whole, _ = load(made, quantize="none")
    model, _ = load(made)
    layer = model.model.layers[1].self_attn.o_proj
    restored = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    wanted = whole.model.layers[1].self_attn.o_proj.weight
    assert 0 < (restored - wanted).norm() / wanted.norm() < 0.15


def test_a_look_in_eval_mode_leaves_gradients_right(made):
    """bitsandbytes repacks 4-bit weights at the first eval pass on CPUs with AVX512-BF16."""
    model, params = load(made)
    adapted = llm.attach_adapters(model, params)
    ids = torch.randint(5, 200, (2, 6), generator=torch.Generator().manual_seed(0))

    def gradient():
        adapted.zero_grad()
        adapted.train()
        torch.manual_seed(0)
        adapted(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([p.grad.flatten() for p in adapted.parameters() if p.requires_grad])

    before = gradient()
    adapted.eval()
    with torch.no_grad():
        adapted(input_ids=ids)
    assert torch.equal(before, gradient())
    assert before.abs().sum() > 0


def test_what_is_trained_is_exactly_what_was_asked_for(made):
    model, params = load(made)
    adapted = llm.attach_adapters(model, params)
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2
    assert all(".lora_" in n and ("q_proj" in n or "v_proj" in n) for n in trained)
    by_hand = 2 * (4 * 64 + 4 * 64 + 4 * 64 + 4 * 32)  # A and B of q (64 -> 64), of v (64 -> 32)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == by_hand
    assert "self_attn.q_proj.lora_A 2 x 256" in lora.list_trainable(adapted)
    next(adapted.parameters()).requires_grad_(True)
    with pytest.raises(EngineError, match="is trained and should not be"):
        lora.check_trainable(adapted, lambda name: ".lora_" in name)
    with pytest.raises(EngineError, match="no linear layer 'qproj'; this model has down_proj"):
        lora.add_lora(load(made)[0], 4, 8, 0.0, ("qproj",))


def captioner(made, kind="linear", prompt="say"):
    model, _ = load(made, quantize="none")
    sizes = projectors.ProjectorSizes(kind=kind, vision_width=8, patches=4, llm_width=64)
    torch.manual_seed(0)
    wording = llm.read_prompt_template(made.folder, prompt)
    return Captioner(projectors.build_projector(sizes), model, wording).eval(), wording


def test_the_loss_is_that_of_the_caption_alone(made):
    """Oracle: the language model on the whole row of vectors, each term picked by hand."""
    model, wording = captioner(made)
    features = torch.randn(2, 1, 4, 8)
    model.calibrate(features)
    spoken = [np.asarray(wording.encode(text, 20)[0]) for text in CAPTIONS[:2]]
    ids, labels = pad_captions(spoken)
    losses, tokens = model(features, ids, labels)
    assert tokens.tolist() == [len(one) for one in spoken]
    words = model.llm.get_input_embeddings()
    seen_all = model.projector(features / features.std())
    assert model.embed_prompt(features)[:, len(wording.before) :][
        :, :4
    ].std().item() == pytest.approx(words.weight.std().item(), rel=1e-4), (
        "what the projector makes comes in at the scale of words"
    )
    for row, caption in enumerate(spoken):
        seen = seen_all[row] * words.weight.std() / seen_all.std()
        before, after = words(torch.tensor(wording.before)), words(torch.tensor(wording.after))
        whole = torch.cat([before, seen, after, words(torch.from_numpy(caption))])[None]
        logits = model.llm(inputs_embeds=whole).logits[0]
        first = len(before) + 4 + len(after)
        wanted = sum(
            -functional.log_softmax(logits[first + place - 1], -1)[token]
            for place, token in enumerate(caption)
        )
        assert losses[row].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_deviation_in_pieces_is_that_of_the_whole():
    numbers = 100 + torch.randn(1000, generator=torch.Generator().manual_seed(0))
    found = pooled_deviation(numbers.split(7))
    assert float(found) == pytest.approx(float(numbers.double().std()), rel=1e-6)


def test_greedy_with_a_cache_is_greedy_without(made):
    model, wording = captioner(made)
    features = torch.randn(3, 1, 4, 8)
    model.calibrate(features)
    found = model.generate(features, 7)
    words = model.llm.get_input_embeddings()
    for row in range(3):
        vectors, said = model.embed_prompt(features[row : row + 1]), []
        while len(said) < 7:
            token = int(model.llm(inputs_embeds=vectors).logits[0, -1].argmax())
            if token == wording.end:
                break
            said.append(token)
            vectors = torch.cat([vectors, words(torch.tensor([[token]]))], 1)
        assert found[row] == said


def test_repetition_is_penalized_as_transformers_does(made):
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    said = torch.tensor([[3, 7, 3], [0, 1, 49]])
    expected = RepetitionPenaltyLogitsProcessor(1.2)(said, logits)
    assert torch.equal(penalize_repetition(logits, said, 1.2), expected)
    model, _ = captioner(made)
    features = torch.randn(3, 1, 4, 8)
    model.calibrate(features)
    for ids in model.generate(features, 7, 10.0):
        assert len(set(ids)) > len(ids) // 2


@pytest.mark.parametrize("settings", [{}, {"quantize": "none"}, {"use_dora": True}])
def test_merged_adapters_compute_the_same(made, settings):
    """With 4-bit weights, whole ones, and DoRA; products are in fp32."""
    model, params = load(made, **settings)
    adapted = llm.attach_adapters(model, params).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 10)
    ids = torch.tensor([[1, 5, 9, 13, 2]])
    before = adapted(ids).logits
    assert lora.merge_adapters(adapted) == 2 * 2
    assert not [name for name, _ in adapted.named_parameters() if "lora_" in name]
    assert len(quantize.four_bit_layers(adapted)) == (0 if settings.get("quantize") else 2 * 5)
    assert torch.allclose(adapted(ids).logits, before, atol=1e-4)
    assert (adapted(ids).logits - load(made, **settings)[0](ids).logits).abs().max() > 0.01


def test_wordings(made, tmp_path):
    wording = llm.read_prompt_template(made.folder, "")
    assert (wording.before, wording.after, wording.end) == ((1,), (), 2)
    ids, cut = wording.encode("고양이 얼굴", 64)
    assert not cut
    assert ids[-1] == 2
    assert wording.decode([*ids, 7, 8]) == "고양이 얼굴"
    assert wording.encode("a red disc", 2)[1]
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = ["<|im_start|>", "<|im_end|>", "user", "assistant", "\n", "Describe", "[UNK]"]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    plain.add_special_tokens(known[:2])
    plain.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    chat = llm.read_prompt_template(tmp_path, "Describe")
    said = [plain.id_to_token(i) for i in (*chat.before, *chat.after)]
    assert said == ["<|im_start|>", "user", "\n", "\n", "Describe", "<|im_end|>", "\n",
                    "<|im_start|>", "assistant", "\n"]  # fmt: skip
    assert chat.end == 1
    plain = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    plain.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EngineError, match="no eos_token_id"):
        llm.read_prompt_template(tmp_path, "")


@pytest.fixture(scope="module")
def tower_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "clip"
    tiny.write_tower(folder)
    return folder


def tower(folder, **settings):
    params = Params(precision="fp32", feature_dtype="float32", vision_batch=4, **settings)
    return VisionTower(ModelPart(path=str(folder)), params, Precision("fp32", CPU))


def test_a_tower_gives_what_the_library_gives(tower_folder):
    from transformers import CLIPVisionModel

    pixels = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(v) for v in (
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))  # fmt: skip
    whole = CLIPVisionModel.from_pretrained(tower_folder).eval()
    with torch.no_grad():
        found = whole(
            pixel_values=((pixels / 255 - mean) / std).permute(0, 3, 1, 2),
            output_hidden_states=True,
        )
    for layer in (-1, -2):
        for cls in (True, False):
            made = tower(tower_folder, vision_layer=layer, cls=cls)
            wanted = found.hidden_states[layer][:, 0 if cls else 1 :]
            assert made.shape.patches == wanted.shape[1] == 16 + cls
            torch.testing.assert_close(made.encode(pixels), wanted, rtol=1e-4, atol=1e-5)


def test_weights_that_lack_a_tensor_are_refused_not_drawn(made, tower_folder, tmp_path):
    for number, (folder, use) in enumerate((
        (made.folder, lambda place: llm.load_model(place, Params(precision="fp32"), FP32)),
        (tower_folder, lambda place: tower(place).encode(torch.zeros(1, 32, 32, 3).byte())),
    )):  # fmt: skip
        place = tmp_path / str(number)
        shutil.copytree(folder, place)
        tensors = load_file(place / "model.safetensors")
        del tensors[next(name for name in sorted(tensors) if "layers.0." in name)]
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
        with pytest.raises(EngineError, match="the weights lack 1 tensor"):
            use(place)


def test_features_of_a_picture_do_not_depend_on_its_company(tower_folder):
    made = tower(tower_folder)
    pixels = torch.randint(0, 256, (11, 32, 32, 3), dtype=torch.uint8)
    together = made.encode(pixels)
    assert all(torch.equal(made.encode(pixels[i : i + 1])[0], together[i]) for i in range(11))


def test_what_changes_features_changes_their_place(tower_folder, tmp_path):
    plain = tower(tower_folder).fingerprint()
    assert tower(tower_folder).fingerprint() == plain
    assert tower(tower_folder, vision_layer=-2).fingerprint() != plain
    assert tower(tower_folder, cls=True).fingerprint() != plain
    tiny.write_tower(tmp_path / "other")
    assert tower(tmp_path / "other").fingerprint() == plain, "equal weights elsewhere"
    weights = tmp_path / "other" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert tower(tmp_path / "other").fingerprint() != plain
    tiny.write_tower(tmp_path / "normed")
    norm = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "normed" / "preprocessor_config.json").write_text(json.dumps(norm))
    assert tower(tmp_path / "normed").fingerprint() != plain, "another normalization"
    rounded = Params(precision="fp32", feature_dtype="float16")
    assert (
        VisionTower(
            ModelPart(path=str(tower_folder)), rounded, Precision("fp32", CPU)
        ).fingerprint()
        != plain
    )
    for neutral in ({"prompt": "x"}, {"threads": 1}, {"projector": "mlp2x"}, {"lora_rank": 2}):
        assert tower(tower_folder, **neutral).fingerprint() == plain, neutral


def test_only_changed_pictures_are_computed_again(tower_folder, tmp_path):
    made = tower(tower_folder)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    places = np.stack([np.zeros((6, 1), np.int64), np.arange(6)[:, None]], -1)
    store = media.open_feature_store(made, tmp_path, "float32")

    def cached(array):
        return media.cache_features(
            Frames([array], places), store, made, InputPipeline(CPU), lambda *_: None
        )

    assert cached(pixels).computed == 6
    assert cached(pixels).computed == 0
    changed = pixels.copy()
    changed[3, 0, 0, 0] ^= 1
    again = cached(changed)
    assert again.computed == 1
    wanted = made.encode(torch.from_numpy(changed))
    assert torch.equal(again.items.gather(np.arange(6))[:, 0], wanted)


def test_a_full_disk_is_said_before_anything_is_computed(tower_folder, tmp_path, monkeypatch):
    made = tower(tower_folder)
    store = media.open_feature_store(made, tmp_path, "float32")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("U", (), {"free": 10, "total": 100}))
    frames = Frames([np.zeros((2, 32, 32, 3), np.uint8)], np.zeros((2, 1, 2), np.int64))
    with pytest.raises(NoRoomError, match="set feature_cache = false, or make room"):
        media.cache_features(frames, store, made, InputPipeline(CPU), lambda *_: None)
    assert made._model is None


def test_captions_are_padded_and_drawn():
    ids, labels = pad_captions([np.array([5, 6, 2]), np.array([7, 2])])
    assert ids.tolist() == [[5, 6, 2], [7, 2, 0]]
    assert labels.tolist() == [[5, 6, 2], [7, 2, -100]]
    spoken = TokenizedCaptions([[[1, 2]], [[3, 2], [4, 2]]])
    frames = Frames([np.arange(4)], np.array([[[0, 3]], [[0, 1]]]))
    gatherer = media.CaptionCollator(frames, np.array([1, 0]), spoken, seed=0)
    rows = np.array([1, 0])
    batches = [gatherer(rows, epoch) for epoch in range(12)]
    assert all(b.media.flatten().tolist() == [3, 1] for b in batches)
    assert {b.ids[0, 0].item() for b in batches} == {3, 4}
    assert all(b.ids[1].tolist() == [1, 2] for b in batches)


def test_nobody_gets_their_own_picture():
    for size in (2, 3, 50):
        partners = choose_others(size)
        assert sorted(partners) == list(range(size))
        assert (partners != np.arange(size)).all()


def test_patience_counts_from_the_best():
    assert best_index([3.0], 0.1, higher_is_better=False) == (0, 0)
    assert best_index([3.0, 2.0, 1.95, 2.5], 0.1, higher_is_better=False) == (1, 2)
    assert best_index([3.0, 2.0, 1.85], 0.1, higher_is_better=False) == (2, 0)


def test_the_interval_of_a_ratio_holds_its_value():
    generator = np.random.default_rng(1)
    tokens = generator.integers(2, 9, 200).astype(float)
    nats = tokens * generator.normal(3, 0.5, 200)
    found = ratio_interval(nats, tokens)
    ratio = nats.sum() / tokens.sum()
    # the delta method, an independent way to the same width
    spread = 1.96 * (nats - ratio * tokens).std() / tokens.mean() / math.sqrt(200)
    assert found.low == pytest.approx(ratio - spread, abs=0.2 * spread)
    assert found.high == pytest.approx(ratio + spread, abs=0.2 * spread)


def test_checkpointing_changes_no_gradient(made):
    grads = []
    for gradient_checkpointing in (False, True):
        model, params = load(made, gradient_checkpointing=gradient_checkpointing, lora_dropout=0.0)
        torch.manual_seed(0)
        adapted = llm.attach_adapters(model, params).train()
        nn.init.normal_(next(p for n, p in adapted.named_parameters() if "lora_B" in n))
        ids = torch.arange(5, 17).view(2, 6)
        adapted(input_ids=ids, labels=ids).loss.backward()
        grads.append([p.grad.clone() for p in adapted.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
