"""Deep models from shallow ones: a line is followed, and anything else is rehearsed whole."""

from __future__ import annotations

from engines.torchkit.memory import depth_extrapolation
from engines.torchkit.memory.depth_extrapolation import Measured


def grows(layers: int) -> Measured:
    """Two moments: a shallow model's peak is at the second, a deep one's at the first."""
    early = {"weights": 10 * layers, "activations": 7 * layers}
    late = {"weights": 10 * layers, "logits": 100}
    peaks = {"train: forward": early, "train: logits": late, "predict: ": {"weights": 3}}
    return Measured(peaks, {"files": 5 + layers})


def test_a_deep_model_is_what_its_shallow_ones_say() -> None:
    asked: list[int] = []

    def measure(layers: int) -> Measured:
        asked.append(layers)
        return grows(layers)

    found = depth_extrapolation.at_depth(36, measure)
    assert asked == [2, 3, 4]
    assert found == grows(36)
    assert depth_extrapolation.largest(found.peaks, "train") == {"weights": 360, "activations": 252}
    assert depth_extrapolation.largest(grows(4).peaks, "train") == {"weights": 40, "logits": 100}


def test_what_is_on_no_line_is_rehearsed_whole() -> None:
    def bent(layers: int) -> Measured:
        return Measured({"train: ": {"weights": layers**2}}, {})

    def other_parts(layers: int) -> Measured:
        return Measured({"train: ": {f"part {layers}": 1}}, {})

    def shrinking(layers: int) -> Measured:
        return Measured({"train: ": {"weights": 20 - layers}}, {})

    for measure in (bent, other_parts):
        assert depth_extrapolation.at_depth(36, measure) == measure(36)
    assert (
        depth_extrapolation.extended([shrinking(n) for n in depth_extrapolation.DEPTHS], 36) is None
    ), "fewer than none"
    asked: list[int] = []
    depth_extrapolation.at_depth(6, lambda layers: asked.append(layers) or grows(layers))
    assert asked == [6], "a shallow model is no deeper than three others"


def test_layers_that_are_not_alike_are_not_counted_as_such() -> None:
    assert depth_extrapolation.layers_of({"num_hidden_layers": 28}) == 28
    assert depth_extrapolation.layers_of({"num_hidden_layers": 28, "use_sliding_window": True}) == 0
    mixed = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}
    assert depth_extrapolation.layers_of(mixed) == 0
    alike = {"num_hidden_layers": 12, "layer_types": ["full_attention"] * 12}
    assert depth_extrapolation.shallow(alike, 2)["layer_types"] == ["full_attention"] * 2
