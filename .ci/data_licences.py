"""Licences of the shipped recipes' data and of the model catalog's weights, as Markdown."""

from __future__ import annotations

from datasets_mm import catalog as subsets
from engines import model_catalog


def main() -> None:
    """Print two tables."""
    print("# Licences of data and weights\n\n| subset | licences |\n|---|---|")
    for name in subsets.names():
        licences = subsets.root_source(subsets.lineage(name)).licences
        print(f"| {name} | {'; '.join(licences) or 'of its publisher; not shipped'} |")
    print("\n| model | licence of the weights |\n|---|---|")
    for name in model_catalog.names():
        entry = model_catalog.load(name)
        print(f"| {name} | {entry.license or 'none: trained here, or of its parts'} |")


if __name__ == "__main__":
    main()
