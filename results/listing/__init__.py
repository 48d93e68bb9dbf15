"""Lists of runs from results.jsonl: summaries of records, their index, and the filter language."""
