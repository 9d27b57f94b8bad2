"""Pytest fixtures for users of reactive-worker."""
