"""Model families against the libraries they are built on: TinyCLIP's layout, frozen towers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as token_models
from transformers import CLIPConfig, CLIPModel

from engines import model_catalog
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.retrieval import Params, run
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.models import clip, frozen_towers, tokenizer
from engines.retrieval.models.encoder import count_parameters, l2_normalize
from engines.torchkit.modeling import model_tokenizer
from engines.torchkit.runtime.precision import Precision

END, START, WORDS = "<|endoftext|>", "<|startoftext|>", 300
CPU = torch.device("cpu")


def silent(_done: int, _total: int, _unit: str) -> None:
    """No progress."""


def tinyclip_layout(folder: Path, *, eos: int | None = None) -> CLIPModel:
    """TinyCLIP-61M's layout (12 vision and 9 text blocks, 77 positions, 32 px patches), thin.

    Like the hub repository: model.safetensors, config.json, tokenizer.json, and no
    tokenizer_config.json.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    vocabulary |= {START: len(vocabulary), END: len(vocabulary) + 1}
    tokenizer = Tokenizer(token_models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), add_prefix_space=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    thin = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **thin, "num_hidden_layers": 9, "max_position_embeddings": 77,
            "vocab_size": len(vocabulary), "bos_token_id": vocabulary[START],
            "eos_token_id": vocabulary[END] if eos is None else eos,
        },
        vision_config={**thin, "num_hidden_layers": 12, "image_size": 224, "patch_size": 32},
        projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def tinyclip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinyclip")
    model = tinyclip_layout(folder)
    assert not (folder / "tokenizer_config.json").exists()
    return folder, model


@pytest.fixture(scope="module")
def tokens(tinyclip):
    texts = ["a red disc", "x", "What noise does this make? " * 10]
    return TokenItems.tokenize(texts, model_tokenizer.from_folder(tinyclip[0]), 77, pad=0)


@torch.inference_mode()
def test_text_vectors_are_transformers_own(tinyclip, tokens):
    folder, reference = tinyclip
    model = clip.from_folder(folder, 0.07).eval()
    batch = tokens.gather(np.arange(3))
    alone = [tokens.gather(np.array([i])) for i in range(3)]
    expected = torch.cat([reference.get_text_features(input_ids=t).pooler_output for t in alone])
    torch.testing.assert_close(model.embed_texts(batch, "query"), expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_image_vectors_are_those_of_the_published_transform(tinyclip):
    folder, reference = tinyclip
    model = clip.from_folder(folder, 0.07).eval()
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pixels = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    expected = reference.get_image_features(pixel_values=pixels).pooler_output
    found = model.embed_images(images, "query")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_last_layer_alone_is_the_towers_own_output(tinyclip, tokens):
    model = clip.from_folder(tinyclip[0], 0.07).eval()
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    batch = tokens.gather(np.arange(3))
    own = model.embed_texts(batch, "query"), model.embed_images(images, "query")
    model.text_layers, model.vision_layers = (8,), (11,)
    torch.testing.assert_close(model.embed_texts(batch, "query"), own[0])
    torch.testing.assert_close(model.embed_images(images, "query"), own[1])


@torch.inference_mode()
def test_layers_are_averaged_after_the_norm_and_then_projected(tinyclip, tokens):
    folder, reference = tinyclip
    model = clip.from_folder(folder, 0.07).eval()
    model.text_layers = (2, 5, 8)
    ids = tokens.gather(np.array([0]))
    hidden = reference.text_model(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(hidden) == 10, "embeddings and 9 blocks"
    end = ids.shape[1] - 1
    norm = reference.text_model.final_layer_norm
    mean = sum(norm(hidden[i + 1][:, end]) for i in (2, 5, 8)) / 3
    torch.testing.assert_close(model.embed_texts(ids, "query"), reference.text_projection(mean))


def test_long_texts_are_cut_at_77_with_their_end_kept(tinyclip, tokens):
    assert tokens.truncated == 1
    assert tokens.costs().tolist()[2] == 77
    end = model_tokenizer.from_folder(tinyclip[0]).token_to_id(END)
    assert tokens.gather(np.array([2]))[0, -1] == end


@torch.inference_mode()
def test_old_configs_with_eos_2_pool_at_the_true_end(tmp_path):
    tinyclip_layout(tmp_path, eos=2)
    model = clip.from_folder(tmp_path, 0.07).eval()
    items = TokenItems.tokenize(
        ["red", "a red disc"], model_tokenizer.from_folder(tmp_path), 77, pad=0
    )
    model.text_layers = (8,)
    picked = model.embed_texts(items.gather(np.arange(2)), "query")
    model.text_layers = ()
    torch.testing.assert_close(model.embed_texts(items.gather(np.arange(2)), "query"), picked)


def test_the_true_tinyclip_has_the_known_number_of_parameters():
    """115,382,145 with logit_scale, built from the published sizes without allocating it."""
    with torch.device("meta"):
        sizes = CLIPConfig(
            text_config={"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 9,
                         "num_attention_heads": 8, "vocab_size": 49_408},
            vision_config={"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 12,
                           "num_attention_heads": 10, "patch_size": 32},
            projection_dim=512,
        )  # fmt: skip
        model = CLIPModel(sizes)
    assert count_parameters(model)[0] == 115_382_145


def test_a_run_on_a_local_folder_by_path(tiny, tinyclip, tmp_path):
    folder, _ = tinyclip
    name = f"path:{folder}"
    entry = model_catalog.load(name)
    assert model_catalog.find_problem(entry) is None
    settings = {
        **entry.settings, "layers": [3, 7, 11], "max_steps": 2, "batch": 4, "threads": 1,
        "data_root": str(tiny / "data"), "timing_warmup_steps": 0,
    }  # fmt: skip
    spec = RunSpec(
        suite="s", run_id="01-x", engine="retrieval", subset="tiny_train", model=name,
        cache_root=str(tiny / "cache"), params=Params(**settings).model_dump(mode="json"),
    )  # fmt: skip
    emit = Emitter()
    run(spec, emit, tmp_path)
    plan = next(m for m in emit.sent if m.kind == "plan")
    assert plan.facts["layers"] == "3,7,11 -> text 2,5,8; vision 3,7,11"
    assert "own" in plan.facts["tokenizer"]
    long = spec.model_copy(update={"params": {**spec.params, "max_length": 78}})
    with pytest.raises(EngineError, match="max_length = 78: .* takes at most 77"):
        run(long, Emitter(), tmp_path)


def test_a_built_tokenizer_is_the_same_every_time(tmp_path):
    texts = [f"The {a} of the {b} is {a}{b}." for a in ("sound", "taste") for b in range(50)]
    first = tokenizer.get_or_train_tokenizer(texts, 120, tmp_path / "a")
    second = tokenizer.get_or_train_tokenizer(texts, 120, tmp_path / "b")
    assert first.to_str() == second.to_str()
    assert tokenizer.get_or_train_tokenizer(texts, 120, tmp_path / "a").to_str() == first.to_str()
    ids = first.encode("The sound of 7").ids
    assert (ids[0], ids[-1]) == (3, 4)
    assert len(json.loads(first.to_str())["model"]["vocab"]) <= 120


# Frozen towers

needs_demo = pytest.mark.skipif(
    model_catalog.find_problem(model_catalog.load("effnet-minilm")) is not None,
    reason="needs the demo extra",
)


@needs_demo
def test_text_features_are_those_of_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = ["What is the capital?", "In Korean, camel is called 낙타.", "x"]
    tower = frozen_towers.MiniLMTower((), Precision("fp32", CPU))
    items = TokenItems.tokenize(texts, model_tokenizer.from_folder(tower.folder), 64, pad=0)
    found = tower.features(items, tmp_path, silent).gather(np.arange(3)).float()
    reference = SentenceTransformer(str(tower.folder), device="cpu")
    expected = torch.from_numpy(reference.encode(texts, normalize_embeddings=True))
    assert (l2_normalize(found) * expected).sum(1).min() > 0.9999


@needs_demo
def test_image_features_do_not_depend_on_their_batch(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 64, 64, 3), np.uint8)
    tower = frozen_towers.EfficientNetTower(Precision("fp32", CPU))
    together = tower.features(ArrayItems([pictures]), tmp_path / "a", silent)
    alone = tower.features(ArrayItems([pictures[1:2]]), tmp_path / "b", silent)
    again = tower.features(ArrayItems([pictures[1:2]]), tmp_path / "a", silent)
    row = together.gather(np.array([1]))
    assert row.shape == (1, frozen_towers.IMAGE_WIDTH)
    torch.testing.assert_close(alone.gather(np.array([0])), row, atol=2e-3, rtol=1e-2)
    assert torch.equal(again.gather(np.array([0])), row)


@needs_demo
@pytest.mark.usefixtures("single_steps")
def test_a_cold_and_a_warm_cache_give_bitwise_equal_losses(tiny, tmp_path):
    def losses(name: str) -> list[float]:
        settings = {
            **model_catalog.load("effnet-minilm").settings,
            "image_size": 64, "max_steps": 4, "batch": 16, "threads": 1,
            "data_root": str(tiny / "data"), "timing_warmup_steps": 0,
            "evaluate_on": [], "layers": [7, 11],
        }  # fmt: skip
        spec = RunSpec(
            suite="s", run_id="01-x", engine="retrieval", subset="tiny_train",
            model="effnet-minilm", cache_root=str(tmp_path / "cache"),
            params=Params(**settings).model_dump(mode="json"),
        )  # fmt: skip
        emit = Emitter()
        (tmp_path / name).mkdir()
        run(spec, emit, tmp_path / name)
        emit.close()
        facts = next(m for m in emit.sent if m.kind == "plan").facts
        assert facts["layers"] == "7,11 -> text 3,5; vision own output"
        return [m.loss for m in emit.sent if m.kind == "step"]

    assert losses("cold") == losses("warm")
