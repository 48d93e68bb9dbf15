"""Choices and matrix of the Plan screen."""
