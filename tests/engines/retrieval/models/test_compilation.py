"""torch.compile of the towers: one compilation a shape, before the first step, and never again.

With backends that only trace (`eager`) or trace the backward pass too (`aot_eager`): compilations
are counted, and losses can be compared bitwise. One test runs the real compiler.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from benchmarks import step_budget, weekly
from engines import model_catalog
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.retrieval import Params, run
from engines.retrieval.data.pairs import ItemInputs
from engines.retrieval.models import clip, compilation
from engines.retrieval.models.compilation import TowerCompiler, find_representatives
from engines.torchkit.runtime import matmul_precision
from engines.torchkit.training import loop
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch

pytestmark = pytest.mark.usefixtures("fresh_compiler", "shallow")

CPU = torch.device("cpu")


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def shallow(monkeypatch):
    """TinyCLIP with two text and three vision blocks: tracing takes time for each of them."""
    whole = weekly.tiny_clip

    def cut(*sizes):
        clip = whole(*sizes)
        for tower, blocks in ((clip.text_model, 2), (clip.vision_model, 3)):
            tower.encoder.layers = tower.encoder.layers[:blocks]
        return clip

    monkeypatch.setattr(weekly, "tiny_clip", cut)


LAYERS = [0, 2]
"""Of those three: the last and one before it, as the weekly report's three of twelve."""


@pytest.fixture
def tracing(monkeypatch):
    """Compiling without a compiler: the traced operations run as they are."""
    monkeypatch.setattr(compilation, "TowerCompiler", partial(TowerCompiler, backend="eager"))


class Phases(Emitter):
    """Notes how many graphs were compiled when each phase began."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs: dict[str, int] = {}

    def phase(self, name, detail: str = "") -> None:
        self.graphs.setdefault(name, counters["stats"]["unique_graphs"])
        super().phase(name, detail)


def train(steps: int, **settings) -> tuple[list[float], Phases]:
    """A thin TinyCLIP on 128 pairs: losses of single steps. 48 pairs a batch: 48, 48 and 32."""
    matmul_precision.allow_tf32(
        False
    )  # as every run begins: compiled code is guarded by this switch
    step = step_budget.retrieval_step(
        CPU, thin=16, image_size=32, precision="fp32", batch=48, epochs=2, layers=LAYERS, **settings
    )
    job, emit, values = step.job, Phases(), []
    job.stop_at, job.checkpoint_root = steps, None
    forward = job.forward

    def noted(batch):
        outcome = forward(batch)
        values.append(outcome.loss.item())
        return outcome

    job.forward = noted
    loop.train(job, StepTimer(stopwatch(CPU), 0, 3), TimingSummary(3, 0), emit)
    return values, emit


def test_one_compilation_a_shape_and_none_at_the_end_of_an_epoch(tracing):
    """Texts of 44 and 77 tokens are 48 and 77: two shapes, and one of pictures. Two epochs."""
    _, emit = train(6, compile=True)
    assert [m.name for m in emit.sent if m.kind == "phase"][:2] == ["compile", "train"]
    assert emit.graphs["compile"] == 0
    assert emit.graphs["train"] == 3
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]


def test_losses_are_those_without_compiling(tracing, monkeypatch):
    """Bitwise where texts are as long; 44 tokens padded to 48 change the order of sums."""
    plain, _ = train(4)
    padded, _ = train(4, compile=True)
    assert padded == pytest.approx(plain, rel=1e-5)
    monkeypatch.setattr(compilation, "TEXT_MULTIPLE", 1)
    torch._dynamo.reset()
    assert train(4, compile=True)[0] == plain


def test_gradients_of_the_traced_backward_pass_are_those_without(monkeypatch):
    monkeypatch.setattr(compilation, "TowerCompiler", partial(TowerCompiler, backend="aot_eager"))
    plain, _ = train(4)
    traced, _ = train(4, compile=True)
    assert traced == pytest.approx(plain, rel=1e-5)


def test_gradcache_compiles_its_chunks(tracing):
    """Chunks of 16 of 48, and the 32 of the last batch are two more of them: no other shape."""
    plain, _ = train(4, grad_cache_chunk=16)
    compiled, _ = train(4, grad_cache_chunk=16, compile=True)
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert counters["stats"]["unique_graphs"] == 3


def test_one_pass_for_both_sides_has_one_length(tracing):
    matmul_precision.allow_tf32(False)
    step = step_budget.retrieval_step(
        CPU, thin=16, image_size=32, precision="fp32", batch=48, layers=LAYERS, compile=True
    )
    step.job.model.one_pass, step.job.stop_at, step.job.checkpoint_root = True, 3, None
    loop.train(step.job, StepTimer(stopwatch(CPU), 0, 3), TimingSummary(3, 0), Emitter())
    assert counters["stats"]["unique_graphs"] == 2


def test_texts_of_compiled_towers_are_padded_to_few_lengths():
    """Batches whose longest texts have 33 to 48 tokens have one length, 48."""
    widths = []
    for compiled in (False, True):
        step = step_budget.retrieval_step(
            CPU, thin=16, image_size=32, precision="fp32", batch=8, layers=LAYERS, compile=compiled
        )
        batch = next(step.job.loader.batches(0, 1)).result()
        widths.append((batch.queries.texts.shape[1], batch.passages.texts.shape[1]))
    assert widths == [(44, 77), (48, 77)]


def test_one_batch_stands_for_each_combination_of_lengths():
    class Gatherer:
        def text_widths(self, rows, _epoch):
            return (16 if rows[0] % 2 else 32), 48

    step = step_budget.retrieval_step(
        CPU, thin=16, image_size=32, precision="fp32", batch=8, layers=LAYERS
    )
    order = step.job.loader.order

    def found(**kind) -> int:
        return len(list(find_representatives(Gatherer(), order, range(32), **kind)))

    assert found(joined=False, dynamic=False) == 2
    assert found(joined=True, dynamic=False) == 1
    assert found(joined=False, dynamic=True) == 1
    assert (
        len(
            list(
                find_representatives(Gatherer(), order, range(16, 16), joined=False, dynamic=False)
            )
        )
        == 0
    )


@pytest.fixture
def go(tiny, tmp_path):
    def start(**settings) -> tuple[Phases, Path]:
        plain = {"epochs": 10, "max_steps": 5, "evaluate_on": (), "threads": 1, "batch": 16,
                 "precision": "fp32", "data_root": str(tiny / "data")}  # fmt: skip
        every = dict(model_catalog.load("pico").settings) | plain | settings
        spec = RunSpec(
            suite="s", run_id="01-tiny", engine="retrieval", subset="tiny_train", model="pico",
            cache_root=str(tiny / "cache"), params=Params(**every).model_dump(mode="json"),
        )  # fmt: skip
        emit = Phases()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        run(spec, emit, folder)
        return emit, folder

    return start


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/last/model.safetensors")


RECURRENT = {"layer_fusion": "recurrent", "layers": (0, 11), "fusion_width": 16,
             "fusion_queries": 2}  # fmt: skip


@pytest.mark.parametrize("settings", [{}, RECURRENT], ids=["pooled", "recurrent, with dropout"])
def test_items_that_lack_an_image_share_one_compilation(go, tracing, settings):
    """Their number differs from step to step. Weights are bitwise those without compiling, so the
    compiling pass has drawn no random number. Evaluation compiles nothing."""
    _, plain = go(**settings)
    emit, folder = go(**settings, compile=True, evaluate_on=("tiny_val",))
    assert emit.graphs["warmup"] == 2
    assert counters["stats"]["unique_graphs"] == 2
    found = trained(folder)
    assert all(torch.equal(tensor, found[name]) for name, tensor in trained(plain).items())
    assert any(m.kind == "metric" for m in emit.sent)


def test_cuda_graphs_on_a_cpu_are_a_notice(go, tracing):
    emit, _ = go(compile=True, cuda_graphs=True, max_steps=1)
    (notice,) = [m for m in emit.sent if m.kind == "notice" and m.code == "cuda-graphs-off"]
    assert "computes on the CPU" in notice.text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"compile": False}, "set compile = true"),
        ({"grad_cache_chunk": 4}, "with grad_cache_chunk = 4"),
        ({"gradient_accumulation_steps": 2}, "with gradient_accumulation_steps = 2"),
    ],
)
def test_cuda_graphs_are_refused_with_what_they_cannot(go, settings, sentence):
    with pytest.raises(EngineError, match=sentence):
        go(**{"compile": True, "cuda_graphs": True, **settings})


def test_cuda_graphs_are_made_on_a_gpu_and_not_of_open_sizes():
    params, gpu = Params(compile=True, cuda_graphs=True), torch.device("cuda")
    assert compilation.make_compiler(params, gpu, Emitter(), uniform=True).graphs
    emit = Emitter()
    assert not compilation.make_compiler(params, gpu, emit, uniform=False).graphs
    assert "lack a text or an image" in emit.sent[0].text


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler here")
def test_the_real_compiler_gives_vectors_and_gradients_alike():
    sizes = {"width": 16, "layers": 1, "heads": 2, "patch_size": 16, "projection": 16,
             "vocabulary": 50}  # fmt: skip
    torch.manual_seed(0)
    model = clip.from_scratch(sizes, 32, 8, 0.07)
    rows = torch.arange(4)
    texts = torch.randint(5, 50, (4, 8))
    texts[:, -1] = 4
    pictures = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    inputs = ItemInputs(4, texts, rows, pictures, rows)

    def result() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        vectors = model.encode_items(inputs, "query")
        vectors[:, 0].sum().backward()
        return vectors, model.clip.vision_model.embeddings.patch_embedding.weight.grad

    plain = result()
    model.compiler = TowerCompiler(compiles_new_shapes=True)
    torch.testing.assert_close(result(), plain, atol=1e-5, rtol=1e-3)
    assert counters["stats"]["unique_graphs"] == 2
