"""Conditions on validation metrics: what they mean, and how mistakes are refused."""

import math

import pytest
from pydantic import ValidationError

from engines.captioning.params import Params as CaptioningParams
from engines.monitor_condition import Condition, parse_conditions
from engines.vqa.params import Params as VqaParams


def test_conditions_are_read():
    text = "diversity > 0.5 and loss<=3e0 and siglip >= .1"
    assert parse_conditions(text, ("loss", "siglip", "diversity")) == (
        Condition("diversity", ">", 0.5),
        Condition("loss", "<=", 3.0),
        Condition("siglip", ">=", 0.1),
    )
    assert parse_conditions("  ") == ()


@pytest.mark.parametrize(
    ("comparison", "values"),
    [(">", [False, False, True]), (">=", [False, True, True]), ("<", [True, False, False]),
     ("<=", [True, True, False])],
)  # fmt: skip
def test_a_bound_is_compared(comparison, values):
    condition = Condition("loss", comparison, 2.0)
    assert [condition.holds({"loss": loss}) for loss in (1.0, 2.0, 3.0)] == values
    assert not condition.holds({"loss": math.nan})
    assert not condition.holds({})


@pytest.mark.parametrize(
    ("params", "text", "words"),
    [
        (CaptioningParams, "diversty > 0.5", "no validation metric 'diversty'; known: loss, div"),
        (CaptioningParams, "diversity", "'diversity' is no condition; write a metric"),
        (CaptioningParams, "diversity = 0.5", "'diversity = 0.5' is no condition"),
        (CaptioningParams, "diversity > 0.5 and", "'' is no condition"),
        (CaptioningParams, "diversity > 0.5, loss < 3", "'diversity > 0.5, loss < 3' is no"),
        (VqaParams, "diversity > 0.5", "known: loss, accuracy"),
    ],
)
def test_mistakes_are_named_in_a_plan(params, text, words):
    with pytest.raises(ValidationError) as caught:
        params(monitor_where=text)
    assert words in str(caught.value)
    assert params(monitor_where="loss < 3").monitor_where == "loss < 3"
