"""What is called exact is IEEE fp32 where training may use TF32; torch's old and new API agree.

TF32 is emulated: factors of products lose 13 bits of mantissa, as on a GPU, while it is allowed.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engines.retrieval import loss
from engines.retrieval.index import exact
from engines.retrieval.models import max_sim
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.runtime import device, matmul_precision
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training.optimization import adamw

PRODUCTS = {"aten.mm.default", "aten.matmul.default"}


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """To 11 bits of mantissa with the hidden one, to nearest."""
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class Tf32(TorchDispatchMode):
    """A GPU's fp32 products, on a CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func) in PRODUCTS and torch.backends.cuda.matmul.allow_tf32:
            args = tuple(
                rounded(a) if isinstance(a, torch.Tensor) and a.dtype == torch.float32 else a
                for a in args
            )
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def tf32():
    device.configure_torch(torch.get_num_threads(), tf32=True)
    yield
    matmul_precision.allow_tf32(False)
    torch.backends.cudnn.benchmark = False


def alike(n: int, seed: int, width: int = 256) -> torch.Tensor:
    """Unit vectors close to each other, as a model's are: cosines of 0.999."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.ones(width) / width**0.5
    noise = torch.randn(n, width, generator=generator) / width**0.5
    return torch.nn.functional.normalize(mean + 0.03 * noise, dim=-1)


def best(queries, passages) -> torch.Tensor:
    return (queries.double() @ passages.double().T).argmax(1)


@pytest.mark.parametrize("passages", [2000, 20_000])  # the plain way, and by thresholds
def test_exact_search_is_exact_where_tf32_is_not(passages):
    queries, corpus = alike(200, 0), alike(passages, 1)
    with Tf32():
        coarse = (queries @ corpus.T).argmax(1)
        _, rows = exact.top_k(queries, corpus, 10)
    wanted = best(queries, corpus)
    assert (coarse != wanted).float().mean() > 0.02, "the emulation shows what TF32 does"
    scores = queries.double() @ corpus.double().T
    short = scores.gather(1, wanted[:, None]) - scores.gather(1, rows[:, :1])
    assert short.max() < 1e-6, "what fp32 rounds, by the order of a CPU's sums; TF32 loses 1e-4"
    assert torch.backends.cuda.matmul.allow_tf32, "training goes on as it was"


def test_late_scores_are_exact():
    queries, passages = alike(6 * 4, 2).view(6, 4, -1), alike(40 * 3, 3).view(40, 3, -1)
    expected = max_sim.score(queries.double(), passages.double())
    with Tf32():
        found = max_sim.score(queries, passages)
        pairs = queries.flatten(0, 1) @ passages.flatten(0, 1).T
        _, rows = exact.top_k(queries, passages, 5, max_sim.score)
    coarse = pairs.double() - queries.double().flatten(0, 1) @ passages.double().flatten(0, 1).T
    assert coarse.abs().max() > 1e-5
    assert (found.double() - expected).abs().max() < 4e-6
    assert torch.equal(rows[:, 0], expected.argmax(1))


@pytest.mark.parametrize("tokens", [0, 3])
def test_the_similarity_of_the_loss_and_its_gradients_are_exact(tokens):
    shape = (8, tokens, -1) if tokens else (8, -1)
    rows = 8 * max(1, tokens)

    def gradients(mode):
        queries = alike(rows, 4).view(shape).requires_grad_()
        passages = alike(rows, 5).view(shape).requires_grad_()
        weights = torch.randn(8, 8, generator=torch.Generator().manual_seed(6))
        with mode:
            found = loss.similarity(queries, passages)
            (found * weights).sum().backward()
        return found.detach(), queries.grad, passages.grad

    for exact_one, emulated in zip(
        gradients(matmul_precision.ieee_fp32()), gradients(Tf32()), strict=True
    ):
        assert torch.equal(exact_one, emulated)


def test_gradients_of_a_product_are_those_of_torch():
    a = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matmul_precision.ieee_matmul, (a, b))
    assert torch.autograd.gradcheck(lambda x: matmul_precision.ieee_matmul(x, b.detach()), (a,))


@pytest.mark.parametrize("on", [True, False])
def test_both_of_torchs_apis_can_be_read_afterwards(on):
    device.configure_torch(torch.get_num_threads(), tf32=on)
    with matmul_precision.ieee_fp32():
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cuda.matmul.allow_tf32 is on
    assert torch.backends.cudnn.allow_tf32 is on
    assert torch.get_float32_matmul_precision() == ("high" if on else "highest")
    assert torch.backends.cuda.matmul.fp32_precision == ("tf32" if on else "ieee")
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is on
    assert torch.backends.mkldnn.matmul.fp32_precision != "tf32", (
        "a CPU's products stay as they are"
    )


@pytest.mark.parametrize(("name", "capability", "said"), [
    ("fp32", (9, 0), "fp32, products in TF32"), ("fp32", (7, 5), "fp32"), ("fp16", (9, 0), "fp16"),
])  # fmt: skip
def test_a_record_says_where_fp32_is_tf32(monkeypatch, name, capability, said):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: None)
    precision = Precision(name, torch.device("cuda"))
    assert precision.description == said
    assert Precision("fp32", torch.device("cpu")).description == "fp32"
    matmul_precision.allow_tf32(False)
    assert precision.description == name


def test_convolutions_are_timed_for_fixed_shapes_only_and_not_where_results_must_repeat():
    for fixed in (True, False):
        device.set_convolution_benchmark(fixed=fixed)
        assert torch.backends.cudnn.benchmark is fixed
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        device.set_convolution_benchmark(fixed=True)
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("fused", [True, False])
def test_the_step_number_of_a_resumed_optimizer_stays_on_the_cpu_unless_fused(fused):
    """On fake GPU tensors: read on the host, it would cost a wait per parameter and step."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = torch.nn.Linear(2, 2, device="cuda")
        optimizer = adamw(model, 0.1, 0.0, (0.9, 0.98), fused=fused)
        saved = {
            f"{i}.{name}": torch.zeros(p.shape if name != "step" else (), device="cuda")
            for i, p in enumerate(model.parameters())
            for name in ("step", "exp_avg", "exp_avg_sq")
        }
        checkpoints.load_optimizer(optimizer, saved)
        for state in optimizer.state.values():
            assert state["step"].device.type == ("cuda" if fused else "cpu")
            assert state["exp_avg"].device.type == "cuda"
