"""Paraphrases of training questions: which table is taken, what is drawn, what stays as it is."""

from pathlib import Path

import numpy as np
import pytest

from engines.emitter import EngineError
from engines.torchkit.training import nano_models
from engines.vqa.data import paraphrase_writer, paraphrases
from engines.vqa.data.batches import QuestionCollator
from engines.vqa.data.questions import Questions
from tests.engines import engine_runs, tiny_vqa
from tests.engines.tiny_vqa import go, lines, spec

tiny = engine_runs.subset_fixture(tiny_vqa.write)


def questions(count=3):
    return Questions(
        ids=[f"q{n}" for n in range(count)], paths=["p.png"] * count, root=Path(),
        texts=[f"What is {n}?" for n in range(count)], options=[("a", "b", "c", "d")] * count,
        answers=np.zeros(count, np.int64), kinds=["what"] * count,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "question,paraphrase\nWhat is 0?,Which is 0?\nWhat is 0?,Name 0.\nWhat is 2?,\n"),
        ("t.csv", "\ufeffid,paraphrase\nq0,Which is 0?\nq0, Name  0.\nq0,What is 0?\nother,X?\n"),
        ("t.jsonl", '{"data_id": "q0", "paraphrase": ["Which is 0?", "Name 0."]}\n\n'),
    ],
)
def test_a_table_words_the_questions_that_it_names(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    worded, said = paraphrases.add_paraphrases(questions(), str(tmp_path / name))
    assert worded.wordings == [
        ("What is 0?", "Which is 0?", "Name 0."), ("What is 1?",), ("What is 2?",),
    ]  # fmt: skip
    assert said.startswith("1 of 3 training questions have 2 more wordings")
    assert worded.select([2, 0]).wordings == [worded.wordings[2], worded.wordings[0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("question,other\nWhat is 0?,x\n", "row 1 lacks `paraphrase`"),
        ("text,paraphrase\nWhat is 0?,x\n", "row 1 lacks a column that names the question"),
        ("question,paraphrase\nWhy?,x\n", "names none of the 3 training questions"),
        ("question,paraphrase\n", "it has no wording"),
    ],
)
def test_a_table_that_is_none_is_a_sentence(tmp_path, text, reason):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(EngineError, match=reason):
        paraphrases.add_paraphrases(questions(), str(path))
    with pytest.raises(EngineError, match="No such file"):
        paraphrases.add_paraphrases(questions(), str(tmp_path / "none.csv"))


def test_a_wording_is_drawn_by_seed_epoch_and_row(tmp_path):
    (tmp_path / "t.csv").write_text(
        "question,paraphrase\n" + "".join(f"What is {n}?,Which is {n}?\n" for n in range(40))
    )
    worded, _ = paraphrases.add_paraphrases(questions(40), str(tmp_path / "t.csv"))
    rows = np.arange(40)

    def texts(seed, epoch, some=rows):
        found, places = QuestionCollator(None, worded, seed, shuffle=False)._draw_wordings(
            some, epoch
        )
        return [found.texts[place] for place in places]

    assert texts(7, 0) == texts(7, 0), "a resumed run sees what it would have seen"
    assert texts(7, 0)[5:9] == texts(7, 0, rows[5:9]), "whatever batch a question is in"
    assert texts(7, 0) != texts(7, 1) != texts(8, 1)
    assert 8 < sum(text.startswith("Which") for text in texts(7, 0)) < 32
    plain = QuestionCollator(None, questions(), 7, shuffle=False)._draw_wordings(rows[:3], 0)
    assert plain[0].texts == questions().texts


def test_a_run_learns_paraphrases_and_answers_the_questions_as_they_are(tiny, tmp_path):
    table = tmp_path / "t.csv"
    asked = sorted({row["question"] for row in tiny_vqa.rows()})
    table.write_text("question,paraphrase\n" + "".join(f'"{q}","{q[::-1]}"\n' for q in asked))
    sent = go(spec(tiny, settings={"paraphrases": str(table)}), tmp_path / "run")
    plan = next(m for m in sent if m.kind == "plan")
    assert "training questions have 1 more wordings" in plan.facts["paraphrases"]
    assert lines(tmp_path / "run", "validation")


def test_wordings_that_cannot_be_one_are_left_out():
    said = [
        "Question: Which colour have the 2 cups?", '"what colour are the 2 cups?"', "Two cups?",
        "Which colour have the 2 cups?\nBecause I was asked.", "What " * 60 + "2?", "  \n",
    ]  # fmt: skip
    assert paraphrase_writer.filter_wordings("What colour are the 2 cups?", said) == [
        "Which colour have the 2 cups?"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("path:/none", "/none"), ("hub:no/such-model", "hf download no/such-model"),
     ("nano-qwen-vl", "path:/abs/dir or hub:org/name"), ("nothing", "no model 'nothing'")],
)  # fmt: skip
def test_a_language_model_that_is_not_here_is_a_sentence(name, reason):
    with pytest.raises(LookupError, match=reason):
        paraphrase_writer.find_model_folder(name)


def write_language_model(folder):
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = nano_models.train_byte_tokenizer(["What is the question?"], 300, ["<end>"])
    end = tokenizer.token_to_id("<end>")
    sizes = Qwen2Config(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, eos_token_id=end, bos_token_id=end,
    )  # fmt: skip
    Qwen2ForCausalLM(sizes).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)


def test_a_local_model_writes_the_table_that_a_run_takes(tmp_path):
    """The words of a random model mean nothing: what is seen is the way from model to table."""
    write_language_model(tmp_path / "model")
    folder = paraphrase_writer.find_model_folder(f"path:{tmp_path / 'model'}")
    writer = paraphrase_writer.load_writer(folder, 2, seed=1)
    said = writer(["What is 0?", "What is 1, then?"])
    assert [len(one) for one in said] == [2, 2]
    asked = paraphrase_writer.ParaphraseJob(
        ["What is 0?", "What is 1?"], "path:model", 1, tmp_path / "t.csv"
    )
    answers = {"What is 0?": ["Which is 0?"], "What is 1?": ["Name 1.", "What is 2?"]}
    progress = []
    count = paraphrase_writer.write_table(
        asked, lambda some: [answers[q] for q in some], 1, lambda *at: progress.append(at)
    )
    assert count == 2
    assert progress == [(1, 2, "questions"), (2, 2, "questions")]
    worded, _ = paraphrases.add_paraphrases(questions(), str(asked.out))
    assert worded.wordings == [
        ("What is 0?", "Which is 0?"), ("What is 1?", "Name 1."), ("What is 2?",),
    ]  # fmt: skip
