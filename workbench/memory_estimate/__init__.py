"""Will it fit: the forecast of a run's memory against a GPU, before anything runs."""
