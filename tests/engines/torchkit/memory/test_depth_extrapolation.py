"""Deep models from shallow ones: a line is followed, and anything else is simulated whole."""

from __future__ import annotations

from engines.torchkit.memory import depth_extrapolation
from engines.torchkit.memory.depth_extrapolation import Measurement


def grows(layers: int) -> Measurement:
    """Two moments: a shallow model's peak is at the second, a deep one's at the first."""
    early = {"weights": 10 * layers, "activations": 7 * layers}
    late = {"weights": 10 * layers, "logits": 100}
    peaks = {"train: forward": early, "train: logits": late, "predict: ": {"weights": 3}}
    return Measurement(peaks, {"files": 5 + layers})


def test_a_deep_model_is_what_its_shallow_ones_say() -> None:
    asked: list[int] = []

    def measure(layers: int) -> Measurement:
        asked.append(layers)
        return grows(layers)

    found = depth_extrapolation.measure_at_depth(36, measure)
    assert asked == [2, 3, 4]
    assert found == grows(36)
    assert depth_extrapolation.largest_moment(found.peaks, "train") == {
        "weights": 360,
        "activations": 252,
    }
    assert depth_extrapolation.largest_moment(grows(4).peaks, "train") == {
        "weights": 40,
        "logits": 100,
    }


def test_what_is_on_no_line_is_simulated_whole() -> None:
    def bent(layers: int) -> Measurement:
        return Measurement({"train: ": {"weights": layers**2}}, {})

    def other_parts(layers: int) -> Measurement:
        return Measurement({"train: ": {f"part {layers}": 1}}, {})

    def shrinking(layers: int) -> Measurement:
        return Measurement({"train: ": {"weights": 20 - layers}}, {})

    for measure in (bent, other_parts):
        assert depth_extrapolation.measure_at_depth(36, measure) == measure(36)
    assert (
        depth_extrapolation.extrapolate([shrinking(n) for n in depth_extrapolation.DEPTHS], 36)
        is None
    ), "fewer than none"
    asked: list[int] = []
    depth_extrapolation.measure_at_depth(6, lambda layers: asked.append(layers) or grows(layers))
    assert asked == [6], "a shallow model is no deeper than three others"


def test_layers_that_are_not_alike_are_not_counted_as_such() -> None:
    assert depth_extrapolation.count_layers({"num_hidden_layers": 28}) == 28
    assert (
        depth_extrapolation.count_layers({"num_hidden_layers": 28, "use_sliding_window": True}) == 0
    )
    mixed = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}
    assert depth_extrapolation.count_layers(mixed) == 0
    alike = {"num_hidden_layers": 12, "layer_types": ["full_attention"] * 12}
    assert depth_extrapolation.with_layers(alike, 2)["layer_types"] == ["full_attention"] * 2
