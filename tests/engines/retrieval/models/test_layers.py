"""Layers of a report on towers of each depth."""

import pytest

from engines.emitter import EngineError
from engines.retrieval.models import layers


def test_the_reports_layers_on_each_depth():
    assert layers.map_layers([3, 7, 11], 12, 12) == (3, 7, 11)
    assert layers.map_layers([3, 7, 11], 9, 12) == (2, 5, 8), "TinyCLIP's text tower"
    assert layers.map_layers([3, 7, 11], 6, 12) == (1, 3, 5)
    assert layers.map_layers([3, 7, 11], 24, 24) == (3, 7, 11)
    assert layers.map_layers([11], 2, 12) == (1,)
    assert layers.describe_layers([3, 7, 11], (2, 5, 8), (3, 7, 11)) == (
        "3,7,11 -> text 2,5,8; vision 3,7,11"
    )


@pytest.mark.parametrize("scale", [12, 24])
@pytest.mark.parametrize("blocks", range(1, 13))
def test_the_last_layer_is_always_the_last(blocks, scale):
    assert layers.map_layers([scale - 1], blocks, scale) == (blocks - 1,)
    every = layers.map_layers(range(scale), blocks, scale)
    assert every == tuple(range(blocks))


def test_layers_out_of_range_name_the_setting():
    with pytest.raises(EngineError, match=r"layers = \[12\]: 12 is out of range"):
        layers.choose_layers([12], [], 9, 12, "text")
    with pytest.raises(
        EngineError, match=r"text_layers = \[9\]: 9 .* text tower has 9 blocks and takes 0 to 8"
    ):
        layers.choose_layers([], [9], 9, 12, "text")
    assert layers.choose_layers([3, 7, 11], [0, 8], 9, 12, "text") == (0, 8)
