"""Files of a binary format where text belongs, told by their marks whatever their endings."""

from __future__ import annotations

from typing import Final

HEAD: Final = 512
"""Bytes of a file's beginning that tell its format."""
FORMATS: Final[tuple[tuple[bytes, int, str, str], ...]] = (
    (b"PK\x03\x04", 0, "an Excel workbook or a ZIP archive", "save it as CSV UTF-8, or unpack it"),
    (b"\xd0\xcf\x11\xe0", 0, "a workbook of Excel 97", "save it as CSV UTF-8"),
    (b"PAR1", 0, "Parquet", "write it as JSON lines or CSV, or take adapter m2kr_parquet"),
    (b"ARROW1", 0, "Arrow", "write it as JSON lines or CSV"),
    (b"\x1f\x8b", 0, "compressed with gzip", "unpack it with gunzip"),
    (b"BZh", 0, "compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ", 0, "compressed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", 0, "compressed with Zstandard", "unpack it with unzstd"),
    (b"7z\xbc\xaf", 0, "a 7z archive", "unpack it"),
    (b"ustar", 257, "a TAR archive", "unpack it"),
    (b"\x80\x04\x95", 0, "a pickle", "pickles run code and are not read: write JSON lines or CSV"),
    (b"\x80\x05\x95", 0, "a pickle", "pickles run code and are not read: write JSON lines or CSV"),
    (b"\x93NUMPY", 0, "an array of NumPy", "write it as JSON lines or CSV"),
    (b"\x89HDF", 0, "HDF5", "write it as JSON lines or CSV"),
    (b"SQLite format 3", 0, "an SQLite database", "write its table as CSV"),
    (b"\x89PNG", 0, "a picture", "name the file that lists the pictures"),
    (b"\xff\xd8\xff", 0, "a picture", "name the file that lists the pictures"),
    (b"%PDF", 0, "a PDF", "write its table as CSV"),
)
"""Mark, its offset, what the file is, and the remedy."""


def describe_format(head: bytes) -> str:
    """What a file with this beginning is, and the remedy; "": text, or not known."""
    for mark, offset, title, remedy in FORMATS:
        if head[offset : offset + len(mark)] == mark:
            return f"is {title}, and text is wanted; {remedy}"
    return ""
