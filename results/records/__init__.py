"""What is stored of runs (records, notes, published scores), and views of it as data; no tables."""
