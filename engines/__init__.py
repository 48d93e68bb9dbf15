"""What runs in the engine process, and the light modules that `workbench` may import.

See docs/architecture.md.
"""
