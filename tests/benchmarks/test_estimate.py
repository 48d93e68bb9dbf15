"""The estimate of a step from its counted operations: sums, products, fusion, and its table."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from benchmarks import estimate, step_budget, step_count
from benchmarks.estimate import ASSUMPTIONS, product_seconds
from benchmarks.step_ops import BARRIERS, Operation, Product, Recorder, fused, record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def operations() -> list[Operation]:
    return record(step_budget.retrieval())


def operation(name: str, reads: dict[int, int], writes: dict[int, int], **more) -> Operation:
    return Operation(name, **{"part": "forward", "launches": 1, **more}, reads=reads, writes=writes)


def test_operations_are_those_that_the_budget_counts(operations):
    counts = step_count.whole_step(step_budget.retrieval())
    for part in step_count.PARTS:
        launches = sum(op.launches for op in operations if op.part == part)
        assert launches == counts[part].kernels


def test_products_of_a_weekly_step_are_those_of_its_sizes(operations):
    """Six times the weights of the blocks, a token: forward, and backward by input and weight."""
    text, vision = (12 * width**2 * blocks for width, blocks in ((512, 9), (640, 12)))
    tokens = {"text": 64 * (44 + 77), "vision": 2 * 64 * 50}
    blocks = 6 * (text * tokens["text"] + vision * tokens["vision"])
    flops = sum(p.flops for op in operations for p in op.products)
    padded = 6 * text * 64 * (77 - 44)  # both sides in one call: padded to the longer
    assert 0.9 * blocks < flops < 1.15 * (blocks + padded)


@pytest.mark.parametrize(
    ("product", "share"),
    [
        (Product(8192, 8192, 8192), 0.95),
        (Product(64, 64, 512), 0.01),
        (Product(3200, 640, 640), 0.5),
    ],
)
def test_large_products_reach_the_rate_and_small_ones_do_not(product, share):
    reached = (
        product.flops / product_seconds(product) / (estimate.rate("bf16 product, large") * 1e12)
    )
    assert reached == pytest.approx(share, rel=0.15) if share > 0.9 else reached < 1.1 * share


def test_a_product_never_takes_less_for_more_rows():
    seconds = [product_seconds(Product(rows, 640, 640)) for rows in range(64, 6_400, 64)]
    assert all(after >= before for before, after in itertools.pairwise(seconds))


def test_a_product_with_few_tiles_is_bound_by_memory_or_launch():
    thin = Product(1, 50_000, 512)
    moved = 2 * (512 + 512 * 50_000 + 50_000) / (estimate.rate("device copy") * 1e12)
    assert product_seconds(thin) >= moved


def test_operations_that_hand_on_values_become_one():
    """A cast, an addition and a GELU between two products: one launch, no value in between."""
    product = (Product(64, 64, 64),)
    made = [
        operation("aten.mm", {0: 100}, {1: 100}, products=product),
        operation("aten.add", {1: 100, 2: 10}, {3: 100}),
        operation("aten.gelu", {3: 100}, {4: 100}),
        operation("aten._to_copy", {4: 100}, {5: 50}),
        operation("aten.mm", {5: 50}, {6: 100}, products=product),
    ]
    kept = fused(made)
    assert [op.name for op in kept] == ["aten.mm", "3 fused", "aten.mm"]
    assert (kept[1].reads, kept[1].writes, kept[1].launches) == ({1: 100, 2: 10}, {5: 50}, 1)


def test_what_the_backward_pass_reads_is_written():
    made = [
        operation("aten.add", {0: 100}, {1: 100}),
        operation("aten.gelu", {1: 100}, {2: 100}),
        operation("aten.gelu_backward", {1: 100, 3: 100}, {4: 100}, part="backward"),
    ]
    kept = fused(made)
    assert [op.name for op in kept] == ["1 fused", "1 fused", "1 fused"]
    assert {number for op in kept for number in op.writes} == {1, 2, 4}


def test_no_group_spans_a_product():
    """A residual stream goes around a product: it is written before, and read after it."""
    made = [
        operation("aten.add", {0: 8}, {1: 8}),
        operation("aten.mm", {0: 8}, {2: 8}, products=(Product(2, 2, 2),)),
        operation("aten.add", {1: 8, 2: 8}, {3: 8}),
    ]
    assert len(fused(made)) == 3


def test_fusion_saves_launches_and_bytes_and_no_product():
    """Under autocast, whose casts are nearly all fusible."""
    operations = estimate.count_step(mixed_precision="autocast")[0]
    after = fused(operations)
    assert sum(op.launches for op in after) < 0.8 * sum(op.launches for op in operations)
    assert sum(op.bytes for op in after) < 0.8 * sum(op.bytes for op in operations)
    flops = [sum(p.flops for op in ops for p in op.products) for ops in (operations, after)]
    assert flops[0] == flops[1]
    assert all(not op.name.startswith("aten.") or not op.fusible for op in after)
    kept = [op for op in operations if op.name.startswith(BARRIERS)]
    assert [op for op in after if op.name.startswith(BARRIERS)] == kept


def test_what_is_only_overwritten_is_not_read_and_gradients_are_not_written():
    weight = torch.nn.Parameter(torch.ones(8))
    optimizer, copied = torch.optim.AdamW([weight], fused=True), torch.ones(8).bfloat16()
    recorder = Recorder()
    for recorder.part in ("", "optimizer"):  # the first step makes the moments
        weight.grad = torch.ones(8)
        with recorder:
            optimizer.step()
            torch._foreach_copy_([copied], [weight.detach()])
    moved = {op.name: (sum(op.reads.values()), sum(op.writes.values()))
             for op in recorder.operations}  # fmt: skip
    assert moved["aten._foreach_copy_"] == (32, 16)
    assert moved["aten._fused_adamw_"] == (4 * 32 + 4, 3 * 32)


def test_the_goals_value_of_an_assumption_gives_the_goals_epoch(operations):
    compiled = fused(operations)
    rate = estimate.goal_value("memory-bound kernel", compiled)
    assert rate is not None
    assert estimate.epoch_at("memory-bound kernel", rate, compiled) == pytest.approx(60, abs=0.01)
    assert estimate.goal_value("fp32 product", compiled) is None


def test_attention_and_convolutions_are_recorded(operations):
    assert sum(op.attention_flops for op in operations) > 5e10
    assert any(op.name == "aten.convolution" and op.products for op in operations)
    places = torch.Size([2 * 64 * 49, 640, 3 * 32 * 32])
    shapes = {(p.m, p.n, p.k) for op in operations for p in op.products}
    both = tuple(places)
    assert both in shapes or (both[0] // 2, *both[1:]) in shapes


def test_every_assumption_is_measured_by_a_step_of_the_device_script():
    source = "".join(path.read_text() for path in (ROOT / "benchmarks/gpu").glob("*.py"))
    for name in ASSUMPTIONS:
        assert f'"{name}"' in source, name


def test_the_tables_name_every_assumption_and_go_where_the_marks_are(operations):
    text = estimate.tables(operations, 19_300_000)
    for name in ASSUMPTIONS:
        assert f"| {name} |" in text
    assert re.search(r"339,137 pairs, batch 64: 5,300 steps; 60 s of epoch are 11\.3 ms", text)
    first, last = estimate.MARKS
    whole = estimate.fill_results(f"before\n{first}\nold\n{last}\nafter", text)
    assert whole.startswith(f"before\n{first}\n\n{text[:40]}")
    assert whole.endswith(f"{last}\nafter")
    assert "old" not in whole
    assert all(mark in estimate.RESULTS.read_text() for mark in estimate.MARKS)


def test_an_epoch_is_the_slower_of_host_and_device():
    fast = estimate.Estimate("", 1, 1.0, 1.0, 1.0, 1.0, host=2.0, copies=0.0)
    slow = estimate.Estimate("", 1, 1.0, 1.0, 1.0, 1.0, host=9.0, copies=1.0)
    assert (fast.step, slow.step) == (4.0, 10.0)
    assert slow.epoch == pytest.approx(53.0)
