"""Everything that only a GPU can tell, in named steps with a time budget each: `benchmarks/gpu.sh`.

The runner (`runner`) uses the standard library alone. Steps run in a worker process, which is
replaced when one fails or takes too long, and report each figure when it is measured.
"""
