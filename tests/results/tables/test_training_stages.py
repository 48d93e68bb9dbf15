"""The tables of stages and epochs, on the figures of an experiment with two stages."""

from __future__ import annotations

from results.records.schema import EpochRecord, MetricRecord, Reading, StageRecord
from results.tables import training_stages
from results.text.table import render_markdown

LOSSES = (1.8168, 1.6645, 1.6481, 1.6389, 1.6302)
SCORED = (
    (1.6154, 0.2355, 0), (1.5601, 0.2330, 1), (1.4549, 0.3383, 0), (1.3828, 0.1347, 1),
    (1.3106, 0.0430, 2), (1.2581, 0.0032, 3),
)  # fmt: skip


def stage(number: int, name: str, epochs: float, planned: float, settings) -> StageRecord:
    seconds = Reading(value=340.0)
    return StageRecord(
        stage=number, name=name, settings=settings, trainable_parameters=205_840_384,
        planned_steps=270, steps=int(27 * epochs), planned_epochs=planned, epochs=epochs,
        wall_seconds=Reading(reason="the run was resumed within the stage") if number == 1
        else Reading(value=3661.0),
        epoch_wall_seconds=seconds, step_median=Reading(value=12.5), samples_per_second=seconds,
    )  # fmt: skip


def experiment(make):
    first = [
        EpochRecord(stage=1, epoch=n, steps=27, loss=loss, seconds=340.0)
        for n, loss in enumerate(LOSSES, 1)
    ]
    second = [
        EpochRecord(
            stage=2, epoch=n, steps=27, loss=loss, seconds=None if n == 2 else 345.0,
            validation={"validation_siglip": score}, since_best=since, patience=3,
            stopped=since == 3,
        )
        for n, (loss, score, since) in enumerate(SCORED, 1)
    ]  # fmt: skip
    built = make.record("01-c")
    params = {
        "batch": 16,
        "gradient_accumulation_steps": 2,
        "lr": 5e-5,
        "trainable": ["projector", "lora"],
    }
    stages = (
        stage(1, "projector", 5, 5, {"trainable": ["projector"], "lr": 1e-3}),
        stage(2, "", 6, 10, {"epochs": 10}),
    )
    identity = built.identity.model_copy(update={"params": params})
    update = {"identity": identity, "stages": stages, "training_epochs": (*first, *second)}
    return built.model_copy(update=update)


def cells(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_a_stage_is_a_row_with_its_own_settings(make):
    table = training_stages.stages([experiment(make), make.record("02")])
    assert [row[1:] for row in cells(table)] == [
        ["1 (projector)", "projector", "205.8 M", "0.001", "16 × 2", "5", "135",
         "the run was resumed within the stage", "5:40.00", "0:12.50"],
        ["2", "projector, lora", "205.8 M", "5e-05", "16 × 2", "6 / 10", "162", "1:01:01",
         "5:40.00", "0:12.50"],
    ]  # fmt: skip


def test_an_epoch_is_a_row_with_its_note(make):
    table = training_stages.epochs([experiment(make)])
    rows = [row[1:] for row in cells(table)]
    assert rows[0] == ["1 (projector)", "1", "1.8168", "5:40.00", "–", ""]
    assert [row[0] for row in rows] == ["1 (projector)"] * 5 + ["2"] * 6
    assert [(row[4], row[5]) for row in rows[5:]] == [
        ("0.2355", "new best"),
        ("0.2330", "no improvement 1/3"),
        ("0.3383", "new best"),
        ("0.1347", "no improvement 1/3"),
        ("0.0430", "no improvement 2/3"),
        ("0.0032", "no improvement 3/3, early stop"),
    ]
    assert rows[6][3] == "–"
    korean = render_markdown(training_stages.epochs([experiment(make)], "ko"))
    assert "개선 없음 3/3, 조기 종료" in korean


def test_scores_of_the_best_and_the_last_epoch_stand_side_by_side(make):
    def score(name, value, split="clips"):
        return MetricRecord(name=name, value=value, split=split, n=97, low=value - 0.1, high=value)

    both = [score("SigLIP", 0.3383), score("SigLIP[last epoch]", 0.0032), score("CIDEr", 1.0)]
    run = experiment(make).model_copy(update={"metrics": (*both, score("SigLIP", 0.5, "train"))})
    table = training_stages.best_and_last_scores([run, make.record("02-other")])
    assert [row[-5:] for row in cells(table)] == [
        ["clips", "SigLIP", "97", "0.338 [0.238, 0.338]", "0.003 [-0.097, 0.003]"]
    ]
    assert [column.title for column in table.columns[-2:]] == ["best, kept", "last"]
    korean = training_stages.best_and_last_scores([run], "ko")
    assert korean.columns[-1].title == "마지막"
    assert not training_stages.best_and_last_scores([make.record("02-other")]).rows


def test_best_and_last_epoch_stand_side_by_side(make):
    run = experiment(make)
    facts = {"monitor": "siglip, higher is better, where diversity > 0.5", "load_best": "yes, by"}
    table = training_stages.best_and_last([run.model_copy(update={"facts": facts})])
    assert [row[1:] for row in cells(table)] == [
        ["2", "best, kept", "3", "0.3383", facts["monitor"]],
        ["2", "last", "6", "0.0032", facts["monitor"]],
    ]
    korean = training_stages.best_and_last([run.model_copy(update={"facts": facts})], "ko")
    assert cells(korean)[0][-1] == "siglip, 높을수록 좋음, 조건: diversity > 0.5"
    off = {**facts, "load_best": "no, the last weights"}
    kept = training_stages.best_and_last([run.model_copy(update={"facts": off})])
    assert [row[2] for row in cells(kept)] == ["best", "last, kept"]
    epochs = run.training_epochs
    rising = run.model_copy(update={"training_epochs": epochs[:-3]})
    assert [row[2:4] for row in cells(training_stages.best_and_last([rising]))] == [
        ["best, and the last", "3"]
    ]
    never = [epoch.model_copy(update={"since_best": 4}) for epoch in epochs[-4:]]
    none = run.model_copy(update={"training_epochs": tuple(never), "facts": facts})
    assert [row[2] for row in cells(training_stages.best_and_last([none]))] == ["last, kept"]


def test_runs_without_stages_and_validation_have_no_rows(make):
    record = make.record("01")
    bare = record.model_copy(update={"training_epochs": (EpochRecord(epoch=1, steps=3, loss=1.0),)})
    assert not training_stages.epochs([bare]).rows
    assert not training_stages.stages([bare]).rows
    assert not training_stages.best_and_last([bare]).rows
