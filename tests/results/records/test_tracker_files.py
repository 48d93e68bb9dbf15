"""Runs that another program logged: HF Trainer, W&B, tables of epochs."""

import json
import re
import sys

import pytest

from results.records.published_runs import PublishedError
from results.records.tracker_files import ImportedRun, read_runs

FACTS = ImportedRun("captioning", "okvqa_train", "qwen3-8b-clip-l14", "E5")

STATE = {
    "global_step": 6, "max_steps": 6, "epoch": 2.0, "train_batch_size": 16, "total_flos": 1.5e15,
    "best_metric": 0.4,
    "log_history": [
        {"epoch": 0.5, "step": 2, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 1.0},
        {"epoch": 1.0, "step": 3, "loss": 1.0, "learning_rate": 1e-4},
        {"epoch": 1.0, "step": 3, "eval_loss": 0.5, "eval_bleu": 0.2, "eval_runtime": 3.0,
         "eval_model_preparation_time": 0.003,
         "eval_samples_per_second": 9.0},
        {"epoch": 2.0, "step": 6, "loss": float("nan"), "learning_rate": 0.0},
        {"epoch": 2.0, "step": 6, "eval_loss": 0.4, "eval_bleu": 0.3},
        {"epoch": 2.0, "step": 6, "train_runtime": 61.5, "train_samples_per_second": 1.6,
         "train_loss": 1.2},
    ],
}  # fmt: skip


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def metrics_of(record):
    return {metric.name: metric.value for metric in record.metrics}


def test_a_trainers_state(tmp_path):
    write(tmp_path / "out" / "checkpoint-3", "trainer_state.json", STATE | {"global_step": 3})
    write(tmp_path / "out", "trainer_state.json", STATE)
    (record,) = read_runs(tmp_path / "out", FACTS)
    assert record.identity.suite == "imported-e5"
    assert (record.steps, record.planned_steps, record.epochs) == (6, 6, 2.0)
    assert record.timing.end_to_end_seconds.value == 61.5
    assert record.timing.step_median.reason == "the imported file does not say"
    assert record.train == {"loss": 1.0, "batch": 16.0}
    assert [(e.epoch, e.loss, e.validation) for e in record.training_epochs] == [
        (1, 1.5, {"loss": 0.5, "bleu": 0.2}), (2, None, {"loss": 0.4, "bleu": 0.3})
    ]  # fmt: skip
    assert metrics_of(record) == {"loss": 0.4, "bleu": 0.3}
    assert [m.higher_is_better for m in record.metrics] == [False, True]
    assert all(m.low is None for m in record.metrics)
    assert "nothing of this record was measured here" in record.notices[0]


def test_a_table_of_epochs_and_its_final_metrics(tmp_path):
    write(tmp_path / "E3", "training_log.csv",
          "\ufeffepoch,train_loss,val_loss,val_siglip\n1,2.0,1.9,0.1\n2,1.5,1.6,0.3\n")  # fmt: skip
    write(tmp_path / "E3", "final_metrics.json", {"siglip": 0.31, "meteor": 0.05, "notes": "x"})
    (record,) = read_runs(tmp_path / "E3", FACTS._replace(label=""))
    assert record.identity.run_id == "imported-e3"
    assert metrics_of(record) == {"siglip": 0.31, "meteor": 0.05}
    assert [e.validation["siglip"] for e in record.training_epochs] == [0.1, 0.3]
    (tmp_path / "E3" / "final_metrics.json").unlink()
    (record,) = read_runs(tmp_path / "E3", FACTS)
    assert metrics_of(record) == {"loss": 1.6, "siglip": 0.3}


def test_a_table_of_wandb_has_a_record_a_run(tmp_path):
    header = (
        '"Step","runA - train/loss","runA - train/loss__MIN","runA - eval/acc","runB - eval/acc"'
    )
    rows = '"10","2.0","1.0","","0.5"\n"20","1.5","1","0.7","NaN"\n'
    path = write(tmp_path, "wandb.csv", f"{header}\n{rows}")
    a, b = read_runs(path, FACTS)
    assert [r.identity.label for r in (a, b)] == ["runA", "runB"]
    assert (a.train, a.steps, metrics_of(a)) == ({"loss": 1.5}, 20, {"acc": 0.7})
    assert (b.train, metrics_of(b)) == ({}, {"acc": 0.5})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("trainer_state.json", "{", "no log_history"),
        ("trainer_state.json", {"log_history": []}, "has no loss and no metric"),
        ("a.csv", "time,loss\n1,2\n", "has no column step or epoch; its columns: time, loss"),
        ("a.csv", "", "has no column step or epoch"),
        ("a.csv", "step,other\n1,x\n", "has no loss and no metric"),
        ("a.csv", "step,loss\n", "no row below its heading"),
        ("a.csv", "step,loss\n1,2\n".encode("utf-16")[:-1], "not UTF-8 .* save it as CSV UTF-8"),
        ("a.csv", "epoch,손실\n1,2\n".encode("cp949"), "not UTF-8 .* save it as CSV UTF-8"),
        ("a.csv", 'epoch,val_acc\n1,"12,5%"\n', "val_acc: '12,5%' is no number; write 0.125"),
        ("a.csv", "step;loss\n1;3,2\n", "row 2, loss: '3,2' is no number"),
        ("a.csv", 'step,loss\n"1,000",3.2\n', "row 2, step: '1,000' is no number"),
        ("a.csv", "epoch,loss\n1,0,52\n", "row 2 has more cells than the heading; write 0.52"),
        ("a.txt", "x", "not a form that can be imported"),
    ],
)
def test_what_is_no_log_is_one_sentence(tmp_path, name, content, reason):
    path = write(tmp_path, name, content)
    with pytest.raises(PublishedError, match=reason):
        read_runs(path, FACTS)


def test_rows_of_a_table_come_in_any_order(tmp_path):
    """W&B's export may be sorted by another column; numbers of notes are none of a metric."""
    text = 'step;loss;val_acc;note\n20;1.2;0.7;"2,3"\n3;5.0;;\n10;3.2;0.9;\n'
    for content in (text, text.encode("utf-16")):
        (record,) = read_runs(write(tmp_path, "a.csv", content), FACTS)
        assert (record.steps, record.train, metrics_of(record)) == (20, {"loss": 1.2}, {"acc": 0.7})


def test_epochs_that_count_from_zero_are_not_joined(tmp_path):
    """Keras' and Lightning's logs; a column of training beside one of validation is no metric."""
    text = "epoch,accuracy,loss,val_accuracy,train_f1\n0,0.5,2.0,0.4,0.1\n1,0.8,1.0,0.6,0.2\n"
    (record,) = read_runs(write(tmp_path, "metrics.csv", text), FACTS)
    assert [(e.epoch, e.loss) for e in record.training_epochs] == [(1, 2.0), (2, 1.0)]
    assert (record.epochs, metrics_of(record)) == (2.0, {"accuracy": 0.6})
    text = "Step,r - epoch,r - train_loss,r - val_f1\n9,0,2.0,\n9,0,,0.4,\n19,1,1.0,0.6\n"
    (record,) = read_runs(write(tmp_path, "wandb.csv", text), FACTS)
    assert [(e.epoch, e.loss) for e in record.training_epochs] == [(1, 2.0), (2, 1.0)]
    assert [e.validation for e in record.training_epochs] == [{"f1": 0.4}, {"f1": 0.6}]


@pytest.mark.parametrize("names", [("가", "나"), ("lr=0.1", "lr 0.1"), ("x" * 70, "x" * 71)])
def test_runs_with_like_names_have_ids_of_their_own(tmp_path, names):
    text = f"Step,{names[0]} - loss,{names[1]} - loss\n1,2.0,3.0\n"
    runs = read_runs(write(tmp_path, "wandb.csv", text), FACTS)
    assert [r.identity.label for r in runs] == list(names)
    assert len({r.identity.run_id for r in runs}) == len({r.identity.suite for r in runs}) == 2
    assert all(re.fullmatch(r"imported-[a-z0-9._-]+", r.identity.run_id) for r in runs)


def test_the_last_checkpoint_is_that_of_the_last_step(tmp_path):
    """A copy has changed the times."""
    for step in (90, 100, 9):
        state = STATE | {"global_step": step}
        write(tmp_path / f"checkpoint-{step}", "trainer_state.json", state)
    assert read_runs(tmp_path, FACTS)[0].steps == 100


def test_a_folder_with_nothing_or_too_much(tmp_path):
    with pytest.raises(PublishedError, match=r"neither trainer_state.json nor a CSV"):
        read_runs(tmp_path, FACTS)
    for name in ("a.csv", "b.csv"):
        write(tmp_path, name, "step,loss\n1,2\n")
    with pytest.raises(PublishedError, match="2 CSV files; name the file"):
        read_runs(tmp_path, FACTS)


def test_a_table_of_stages_counts_epochs_of_each(tmp_path):
    """As the study's detailed reports have it: names in words, metrics without a prefix, notes."""
    write(tmp_path / "E5", "training_log.csv",
          "Stage,Epoch,Train Loss,Val SigLIP,Diversity,lr,Time (s),Note\n"
          "Stage 1,1,1.79,,,1e-3,340,\nStage 1,2,1.66,,,1e-3,340,\n"
          "Stage 2,1,1.64,0.08,0.09,5e-5,350,new best\n"
          "Stage 2,2,1.57,0.14,0.06,5e-5,350,\n")  # fmt: skip
    write(tmp_path / "E5", "final_metrics.json", {"siglip": 0.14, "diversity": 0.06})
    (record,) = read_runs(tmp_path / "E5", FACTS)
    assert [(e.stage, e.epoch, e.loss) for e in record.training_epochs] == [
        (1, 1, 1.79), (1, 2, 1.66), (2, 1, 1.64), (2, 2, 1.57)
    ]  # fmt: skip
    assert record.training_epochs[2].validation == {"siglip": 0.08, "diversity": 0.09}
    assert record.epochs == 4.0
    assert metrics_of(record) == {"siglip": 0.14, "diversity": 0.06}


def events(folder, rows, **more):
    writer = pytest.importorskip("tensorboardX").SummaryWriter(logdir=str(folder))
    for tag, value, at in rows:
        writer.add_scalar(tag, value, at, walltime=1000.0 + at)
    writer.close()


def test_event_files_of_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    events(tmp_path / "runs" / "a", [
        ("train/loss", 2.0, 2), ("train/epoch", 0.5, 2), ("train/loss", 1.0, 4),
        ("train/epoch", 1.0, 4), ("eval/bleu", 0.25, 4), ("eval/runtime", 3.0, 4),
    ])  # fmt: skip
    events(tmp_path / "runs" / "b", [("train/loss", 3.0, 1)])
    first, second = read_runs(tmp_path / "runs", FACTS)
    assert [r.identity.label for r in (first, second)] == ["a", "b"]
    assert (first.steps, first.train, metrics_of(first)) == (4, {"loss": 1.0}, {"bleu": 0.25})
    assert [(e.epoch, e.loss) for e in first.training_epochs] == [(1, 1.5)]
    assert (first.started_wall, first.ended_wall) == (1002.0, 1004.0)
    events(tmp_path / "runs" / "c" / "a", [("train/loss", 4.0, 1)])
    labels = [r.identity.label for r in read_runs(tmp_path / "runs", FACTS)]
    assert labels == ["a", "b", "c/a"]
    (file,) = (tmp_path / "runs" / "b").iterdir()
    (alone,) = read_runs(file, FACTS)
    assert (alone.identity.label, alone.steps) == ("E5", 1)


def test_event_files_without_their_reader_name_the_package(tmp_path, monkeypatch):
    write(tmp_path, "events.out.tfevents.1.host", "")
    reader = "tensorboard.backend.event_processing.event_accumulator"
    monkeypatch.setitem(sys.modules, reader, None)
    with pytest.raises(PublishedError, match="pip install tensorboard"):
        read_runs(tmp_path, FACTS)


def test_damaged_event_files_are_refused(tmp_path):
    pytest.importorskip("tensorboard")
    write(tmp_path, "events.out.tfevents.1.host", "no events")
    with pytest.raises(PublishedError, match="nothing to import"):
        read_runs(tmp_path, FACTS)


def test_errors_and_distances_are_better_where_they_are_lower(tmp_path):
    text = "epoch,val_mae,val_rmse,val_ppl,val_word_error_rate,val_map,val_f1\n1,1,1,1,1,1,1\n"
    (record,) = read_runs(write(tmp_path, "a.csv", text), FACTS)
    better = {metric.name: metric.higher_is_better for metric in record.metrics}
    assert better == {"mae": False, "rmse": False, "ppl": False, "word_error_rate": False,
                      "map": True, "f1": True}  # fmt: skip
