"""Memory estimates of a plan's runs, and whether they fit a GPU or a host, before they start."""
