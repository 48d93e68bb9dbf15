"""Encoding of a corpus, and the search in its vectors, exact or with FAISS; no metrics."""
