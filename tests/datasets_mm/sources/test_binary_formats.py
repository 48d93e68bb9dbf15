"""Files that are no text, whatever their endings: said what they are before a line is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets_mm.sources import binary_formats


def _written(write) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


TABLE = pa.table({"image": ["a.png"]})
FILES = {
    "gzip": gzip.compress(b"a,b"), "bzip2": bz2.compress(b"a,b"), "xz": lzma.compress(b"a,b"),
    "pickle": pickle.dumps([{"image": "a.png"}]), "ZIP": _written(
        lambda f: zipfile.ZipFile(f, "w").writestr("a", "b")),
    "Parquet": _written(lambda f: pq.write_table(TABLE, f)),
    "Arrow": _written(lambda f: pa.ipc.new_file(f, TABLE.schema).close()),
    "TAR": tarfile.TarInfo("a").tobuf(),
    "NumPy": _written(lambda f: np.save(f, np.zeros(3))),
    "picture": _written(lambda f: Image.new("RGB", (4, 4)).save(f, "JPEG")),
}  # fmt: skip


@pytest.mark.parametrize("title", FILES)
def test_a_file_that_is_no_text_is_told_by_its_marks(title: str) -> None:
    assert title in binary_formats.describe_format(FILES[title][: binary_formats.HEAD])


@pytest.mark.parametrize(
    "text", ["", "id,image\n", "PK,image\n", '{"a": 1}\n', "\ufeffid", "강아지", "BZ,h\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp949"])
def test_text_is_text(text: str, encoding: str) -> None:
    assert binary_formats.describe_format(text.encode(encoding, "ignore")) == ""
