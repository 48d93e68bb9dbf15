"""Commands about plans: check, estimate, budget, experiments."""
