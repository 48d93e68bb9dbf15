"""Collator: shares of ranks."""

import numpy as np
import pytest

from engines.torchkit.data.collator import Collator
from engines.torchkit.data.data_loader import Rows


class RowCollator(Collator[Rows]):
    """The rows of the share."""

    def collate(self, rows: Rows, epoch: int, share: slice) -> Rows:
        return rows[share] + epoch


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_shares_of_all_ranks_are_the_micro_batch(ranks):
    collator, shares = RowCollator(), []
    for rank in range(ranks):
        collator.rank_and_size = (rank, ranks)
        shares.append(collator(np.arange(7), 10))
    assert np.concatenate(shares).tolist() == list(range(10, 17))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_with_an_empty_share_gets_a_row_as_a_stand_in():
    collator = RowCollator()
    collator.rank_and_size = (2, 3)
    assert collator(np.array([4, 5]), 0).tolist() == [4]
