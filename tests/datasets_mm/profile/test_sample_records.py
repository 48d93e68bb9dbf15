"""Records of a subset that have words, compared with a loop in Python."""

from __future__ import annotations

import pyarrow as pa
import pytest

from datasets_mm.profile import sample_records

RECORDS = [
    {
        "data_id": "q1",
        "question": "What is a Dog?",
        "answer": ["hound"],
        "passage_text": ["A pet."],
    },
    {"data_id": "q2", "question": "개는 무엇인가?", "answer": ["dog", "개"], "passage_text": []},
    {"data_id": "q11", "question": None, "answer": None, "passage_text": ["no", "the DOG barks"]},
    {"data_id": "q3", "question": "50 % of (a.*)", "answer": [], "passage_text": ["."]},
]


def _fits(record: dict[str, object], words: str) -> bool:
    texts = [str(record["data_id"]), str(record["question"] or "")]
    texts += [*(record["answer"] or ()), *record["passage_text"]]
    plain = [text.lower() for text in texts]
    return all(
        word[3:] == record["data_id"]
        if word.startswith("id:")
        else any(word.lower() in text for text in plain)
        for word in words.split()
    )


@pytest.mark.parametrize(
    "words", ["dog", "DOG pet", "개", "id:q1", "id:q1 dog", "q1", "(a.*)", "x"]
)
def test_rows_that_have_all_words(words: str) -> None:
    whole = pa.Table.from_pylist(RECORDS)
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2), whole.slice(3, 1)])
    wanted = [row for row, record in enumerate(RECORDS) if _fits(record, words)]
    for table in (whole, parts, whole.slice(1)):
        rows = sample_records.find_rows(table, words)
        shift = 1 if table.num_rows == len(RECORDS) - 1 else 0
        assert rows == [row - shift for row in wanted if row >= shift]
