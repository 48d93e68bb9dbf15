"""What a preset was expected to cost, beside what it came to."""

from results import published
from results.markdown import markdown
from results.schema import Exit, Metric
from results.words import LANGS


def test_the_name_of_a_plan_is_read_from_its_suite():
    assert published.plan_name("20261121-104605-vqa-3fold-3b-3d5e") == "vqa-3fold-3b"
    assert published.plan_name("mine") == "mine"


def test_every_expectation_has_its_preset():
    from workbench import plan

    for name, expected in published.known().items():
        assert plan.preset(name).name == name
        low, high = expected["accuracy"]
        assert 0.25 < low < high < 1


def test_a_suite_of_a_preset_shows_both(make):
    suite = {"suite": "20261121-104605-vqa-quick-3d5e", "engine": "vqa"}
    held_out = Metric(name="accuracy", value=0.55, split="validation", n=80, low=0.44, high=0.66)
    record = make.record(identity=suite, metrics=(held_out,))
    for lang in LANGS:
        table = published.table([record], lang)
        assert table is not None
        shown = markdown(table)
        assert "0.60–0.65" in shown
        assert "0.550 [0.440, 0.660] (n = 80)" in shown
        assert "8:01.39" in shown
    unfinished = make.record(identity=suite, exit=Exit(cause="failed", code=1))
    table = published.table([record, unfinished])
    assert table is not None
    assert "not all runs completed" in markdown(table)
    assert published.table([make.record()]) is None
