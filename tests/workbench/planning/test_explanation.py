"""A plan in words: what it compares, and the source of each setting that is no default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from results.records.message_translations import localize
from results.text.table import render_terminal
from workbench.memory_estimate import plan_estimate
from workbench.planning import explanation, plan

TABLE = {
    "name": "first", "subsets": ["emoji_train", "emoji_mm_train"], "models": ["clip-nano"],
    "seeds": [1, 2], "settings": {"batch": 32, "lr": 3e-4}, "gpu": "A10G",
    "variant": [{"label": "A"}, {"label": "B", "settings": {"temperature": 0.1}}],
    "override": [{"subset": "emoji_train", "settings": {"weight_decay": 0.2}}],
}  # fmt: skip


def explained(
    table: dict[str, Any], tmp_path: Path, *set_keys: str
) -> tuple[str, dict[str, list[str]]]:
    """The words, and by setting the cells of its rows."""
    suite_plan = plan.parse(table)
    runs = plan_estimate.expand_cells(suite_plan, tmp_path, tmp_path)
    sources = explanation.SettingSources(suite_plan, "first.toml", set_keys)
    differences = explanation.differences_table(runs, sources)
    assert "setting" in render_terminal(differences)
    rows: dict[str, list[str]] = {}
    for row in differences.rows:
        rows.setdefault(row[0].text, []).append(" | ".join(cell.text for cell in row[1:]))
    return "\n".join(explanation.explain_lines(suite_plan, runs)), rows


def test_factors_and_runs(tmp_path: Path) -> None:
    words, _ = explained(TABLE, tmp_path)
    assert "Runs: 8, one after the other" in words
    assert "memory is estimated for A10G" in words
    words, _ = explained({**TABLE, "exclude": [{"seed": 2, "variant": "A"}]}, tmp_path)
    assert "Runs: 6, one after the other" in words
    joined = " ".join(words.split())
    assert "2 subsets (emoji_train, emoji_mm_train) × 2 variants (A, B) × 2 seeds (1, 2)" in joined
    assert (
        "1. A: retrieval, train clip-nano on emoji_train for 8 epochs; then evaluate on emoji_val, "
        "emoji_test_heldout" in joined
    )


def test_each_difference_has_its_source(tmp_path: Path) -> None:
    _, rows = explained(TABLE, tmp_path, "lr")
    assert rows["batch"] == ["32 | 64 | all | first.toml"]
    assert rows["lr"] == ["0.0003 | 2e-05 | all | --set"]
    assert rows["temperature"] == ["0.1 | 0.07 | B | [[variant]] B"]
    assert rows["image_size"] == ["64 | 224 | all | entry of model clip-nano"]
    assert "0.2 | 0.01 | A, B | [[override]] 1" in rows["weight_decay"]
    assert "num_workers" not in rows


def test_folds_stages_and_a_search_are_told(tmp_path: Path) -> None:
    words, _ = explained(plan.load_preset("vqa-3fold-3b").model_dump(by_alias=True), tmp_path)
    assert "Runs: 4, one after the other" in words
    assert "3 folds and their ensemble" in " ".join(words.split())
    study = plan.load_preset("siglip-study").model_dump(by_alias=True)
    words, rows = explained(study, tmp_path)
    assert "in 2 stages (epochs: projector 5, projector + LoRA 10)" in " ".join(words.split())
    assert "2 stages | [] | E5-v3 | [[variant]] E5-v3" in rows["stages"]
    words, _ = explained(plan.load_preset("demo-search").model_dump(by_alias=True), tmp_path)
    assert "10 trials for the best recall@100" in words


def test_every_sentence_has_its_korean(tmp_path: Path) -> None:
    for name in ("demo", "vqa-3fold-3b", "demo-search"):
        suite_plan = plan.load_preset(name)
        runs = plan_estimate.expand_cells(suite_plan, tmp_path, tmp_path)
        sentences = explanation.explain_lines(suite_plan, runs)[1:]  # the first is the plan's own
        for sentence in [*sentences, *explanation.closing_lines("plan.toml")]:
            assert re.search("[가-힣]", localize(sentence, "ko")), sentence
