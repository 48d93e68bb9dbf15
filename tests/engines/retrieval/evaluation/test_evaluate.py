"""Evaluation runs from spec to messages: what they cost, how they search, what they refuse."""

from types import SimpleNamespace

import ir_measures
import pytest
import torch
from ir_measures import Success

from engines import model_catalog
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.retrieval import Params, run
from engines.retrieval.evaluation.evaluate import RetrievalEvaluator


def evaluate(tiny, run_dir, subset="tiny_val", **settings):
    """All that an untrained `pico` says while it is evaluated."""
    asked = dict(model_catalog.load("pico").settings) | {
        "data_root": str(tiny / "data"), "threads": 1, "evaluate_modalities": ["both"], **settings,
    }  # fmt: skip
    run_dir.mkdir(parents=True, exist_ok=True)
    emit = Emitter()
    run(
        RunSpec(
            suite="s", run_id="01-tiny", engine="retrieval", task="evaluate", subset=subset,
            model="pico", cache_root=str(tiny / "cache"),
            params=Params.model_validate(asked).model_dump(mode="json"),
        ),
        emit, run_dir,
    )  # fmt: skip
    emit.close()
    return emit.sent


def test_a_corpus_below_ten_passages_has_no_share_of_an_approximate_search():
    emit = Emitter()
    evaluator = RetrievalEvaluator(None, None, None, None, emit)
    for passages, metrics in ((9, []), (10, ["search_recall@10"])):
        vectors, split = torch.eye(passages), SimpleNamespace(name="few")
        evaluator._compare(split, vectors[:2], vectors, torch.arange(passages).expand(2, -1))
        assert [m.name for m in emit.sent] == metrics


def of_kind(sent, kind):
    return [m for m in sent if m.kind == kind]


def values(sent):
    return {m.name: m.value for m in of_kind(sent, "metric")}


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return evaluate(tiny, folder), folder


def test_an_evaluation_is_timed_like_an_epoch(plain):
    sent, _ = plain
    (cost,) = of_kind(sent, "evaluation")
    assert (cost.split, cost.queries, cost.passages, cost.depth) == ("tiny_val", 12, 144, 144)
    assert (cost.search, cost.precision) == ("exact", "fp32")
    assert cost.batches >= 4, "texts and images of queries, and of the corpus"
    (timing,) = of_kind(sent, "timing")
    whole = cost.corpus_seconds + cost.query_seconds + cost.search_seconds
    assert timing.epoch_wall_seconds == pytest.approx(whole)
    assert timing.epoch_steps == cost.batches
    assert timing.samples_per_second == pytest.approx(12 / whole)
    assert 0 < timing.time_to_first_step == cost.time_to_first_batch < sent[-1].t
    assert "no optimizer steps" in timing.reasons["step_median"]
    (plan,) = of_kind(sent, "plan")
    assert (plan.samples, plan.steps) == (12, 0)


def test_the_parts_add_up_to_what_the_phases_lasted(plain):
    """The journal's phases are another clock over the same work."""
    sent, _ = plain
    (cost,) = of_kind(sent, "evaluation")
    phases = of_kind(sent, "phase")
    ends = [*(m.t for m in phases[1:]), cost.t]
    encode = sum(e - m.t for m, e in zip(phases, ends, strict=True) if m.name == "encode")
    search = sum(e - m.t for m, e in zip(phases, ends, strict=True) if m.name == "search")
    assert cost.corpus_seconds + cost.query_seconds == pytest.approx(encode, abs=0.02)
    assert cost.search_seconds == pytest.approx(search, abs=0.02)


def test_others_find_our_recall_in_the_files_of_a_run(plain):
    sent, folder = plain
    found = ir_measures.calc_aggregate(
        [Success @ 5, Success @ 100],
        ir_measures.read_trec_qrels(str(folder / "predictions/tiny_val.qrels")),
        ir_measures.read_trec_run(str(folder / "predictions/tiny_val.trec")),
    )
    assert found[Success @ 5] == pytest.approx(values(sent)["recall@5"])
    assert found[Success @ 100] == pytest.approx(values(sent)["recall@100"])


def test_a_corpus_smaller_than_the_depth_is_said(plain):
    sent, _ = plain
    (notice,) = [m for m in of_kind(sent, "notice") if m.code == "metrics-depth"]
    assert "144 passages were ranked; K = 500 is deeper" in notice.text
    assert "recall@100" in values(sent)
    assert "recall@500" not in values(sent)


@pytest.mark.parametrize(
    "settings",
    [{"search_precision": "fp16"}, {"corpus_memory_gib": 1e-9}, {"search_depth": 20}],
)
def test_ways_to_search_agree(plain, tiny, tmp_path, settings):
    sent = evaluate(tiny, tmp_path, **settings)
    wanted, found = values(plain[0]), values(sent)
    assert "recall@20" in found
    for name in found.keys() & wanted.keys():
        # In half precision one query of the twelve may change its place; else nothing does.
        tolerance = 0.09 if "search_precision" in settings else 1e-9
        assert found[name] == pytest.approx(wanted[name], abs=tolerance), name
    (cost,) = of_kind(sent, "evaluation")
    assert cost.precision == settings.get("search_precision", "fp32")
    assert cost.depth == min(144, settings.get("search_depth", 500))
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_an_empty_corpus_is_one_sentence(write_subset, tmp_path):
    folder = tmp_path / "hurt"
    write_subset(folder)
    (folder / "data/passages.jsonl").write_text("")
    with pytest.raises(EngineError, match="tiny_val") as caught:
        evaluate(folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "empty" in str(caught.value) or "no passage" in str(caught.value)
