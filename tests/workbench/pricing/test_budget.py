"""The part of a plan that fits a budget, and the plan that it becomes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engines.protocol import RunSpec
from workbench.planning import expand, plan, run_matrix
from workbench.planning.run_matrix import PlanCell
from workbench.pricing import budget
from workbench.pricing.budget import Budget, PricedRun
from workbench.pricing.costs import RunCost, TimeEstimate

GIB = 1 << 30


def priced(
    name: str,
    seconds: float | None,
    memory: int | None = None,
    *,
    cell: str = "",
    needs: tuple[str, ...] = (),
    half: float | None = None,
) -> PricedRun:
    spec = RunSpec(
        suite="", run_id=name, engine="e", task="train", subset="s", model="m", needs=needs,
        params={}, cache_root="/",
    )  # fmt: skip
    time = None if seconds is None else TimeEstimate(seconds, half, 3)
    plan_cell = PlanCell(engine="e", subset="s", model=cell or name, seed=1, repeat=0)
    return PricedRun(plan_cell, spec, RunCost(time=time, memory=memory))


def kept(runs: list[PricedRun], limits: Budget) -> list[str]:
    return [f.run.spec.run_id for f in budget.fit_runs(runs, limits) if not f.reason]


def test_runs_are_taken_in_their_order_and_shorter_ones_behind_a_long_one() -> None:
    runs = [priced("a", 100), priced("b", 500), priced("c", 200), priced("d", 1)]
    fitted = budget.fit_runs(runs, Budget(301))
    assert [f.reason for f in fitted] == ["", "it would end 4:59 too late", "", ""]
    assert [f.end for f in fitted] == [100, None, 300, 301]


def test_the_upper_end_of_an_interval_counts() -> None:
    assert kept([priced("a", 100, half=20.0)], Budget(119)) == []
    assert kept([priced("a", 100, half=20.0)], Budget(120)) == ["a"]


def test_without_a_price_nothing_is_promised() -> None:
    runs = [priced("a", None), priced("b", 1)]
    assert kept(runs, Budget(10)) == ["b"]
    assert kept(runs, Budget(memory=None)) == ["a", "b"], "no limit asks for its time"
    lines = list(budget.list_lines(budget.fit_runs(runs, Budget(10)), Budget(10)))
    assert lines[0] == "1 of 2 runs fit, 0:09 to spare"
    assert "--cost-probe" in lines[1]


def test_memory_over_the_limit_or_unknown_is_left_out() -> None:
    runs = [priced("a", 1, 20 * GIB), priced("b", 1, 30 * GIB), priced("c", 1)]
    fitted = budget.fit_runs(runs, Budget(memory=24 * GIB))
    assert [f.reason for f in fitted] == [
        "", "it needs 30.00 GiB of GPU memory, and 24.00 GiB are given",
        "its GPU memory is not known: no estimate",
    ]  # fmt: skip


def test_folds_and_their_ensemble_are_one_and_needs_are_followed() -> None:
    folds = [priced(f"f{n}", 10, cell="v") for n in (1, 2)]
    ensemble = priced("en", 5, cell="v", needs=("f1", "f2"))
    later = priced("later", 1, needs=("en",))
    assert kept([*folds, ensemble, later], Budget(26)) == ["f1", "f2", "en", "later"]
    fitted = budget.fit_runs([*folds, ensemble, later], Budget(24))
    assert {f.reason for f in fitted[:3]} == {"it would end 0:01 too late"}
    assert fitted[3].reason == "it needs en, which is left out"


def test_lanes_work_side_by_side_behind_what_they_need() -> None:
    runs = [priced("a", 10), priced("b", 4), priced("c", 3, needs=("a",))]
    assert [f.end for f in budget.fit_runs(runs, Budget(100, lanes=2))] == [10, 4, 13]


def test_a_larger_budget_never_loses_the_first_runs_and_never_overruns() -> None:
    drawn = random.Random(3)
    for _ in range(50):
        runs = [priced(str(n), drawn.randint(1, 50)) for n in range(8)]
        limit = drawn.randint(0, 200)
        fitted = budget.fit_runs(runs, Budget(limit))
        total = sum(f.run.cost.time.seconds for f in fitted if not f.reason and f.run.cost.time)
        assert total <= limit
        for f in fitted:
            if f.reason and f.run.cost.time is not None:
                before = [x for x in fitted[: fitted.index(f)] if not x.reason]
                taken = sum(x.run.cost.time.seconds for x in before if x.run.cost.time)
                assert taken + f.run.cost.time.seconds > limit


PLAN = {
    "engine": "retrieval", "subsets": ["emoji_train", "emoji_mm_train"],
    "models": ["clip-nano", "effnet-minilm"], "seeds": [1, 2], "repeats": 2,
}  # fmt: skip


def test_the_fitted_plan_has_exactly_the_runs_that_fit(tmp_path: Path) -> None:
    """Whatever is left out: written, read and expanded it is the same runs."""
    whole = plan.parse(PLAN)
    cells = expand.expand_cells(whole, tmp_path, tmp_path)
    drawn = random.Random(7)
    for _ in range(6):
        runs = [
            PricedRun(cell, spec, RunCost(time=TimeEstimate(drawn.randint(1, 9), None, 1)))
            for cell, spec in cells
        ]
        fitted = budget.fit_runs(runs, Budget(drawn.randint(9, 60)))
        path = tmp_path / "fitted.toml"
        path.write_text(plan.dump(budget.fit_plan(whole, fitted)))
        left = [cell for cell, _ in expand.expand_cells(plan.load(path), tmp_path, tmp_path)]
        assert left == [f.run.cell for f in fitted if not f.reason]


def test_an_exclusion_is_checked(tmp_path: Path) -> None:
    def problems(*blocks: dict[str, object]) -> str:
        with pytest.raises(plan.PlanError) as caught:
            expand.expand(plan.parse({**PLAN, "exclude": list(blocks)}), tmp_path, tmp_path)
        return str(caught.value)

    assert "[[exclude]] number 1 fits no run" in problems({"model": "clip-nan"})
    assert "no run is left" in problems({"engine": "retrieval"})
    assert "names no runs" in problems({"why": "x"})
    specs = expand.expand(
        plan.parse({**PLAN, "exclude": [{"seed": 2}, {"repeat": 2, "model": "clip-nano"}]}),
        tmp_path, tmp_path,
    )  # fmt: skip
    assert {spec.seed for spec in specs} == {1}
    assert len(specs) == 6


def test_a_reason_changes_no_hash_and_no_plan_without_exclusions_changes_its_own() -> None:
    block = {"seed": 2}
    with_reason = plan.parse({**PLAN, "exclude": [{**block, "why": "too long"}]})
    assert with_reason.hash() == plan.parse({**PLAN, "exclude": [block]}).hash()
    assert with_reason.hash() != plan.parse(PLAN).hash()
    assert "exclusions" not in plan.dump(with_reason)
    assert list(run_matrix.iterate_product(with_reason)) == list(
        run_matrix.iterate_cells(plan.parse(PLAN))
    )
