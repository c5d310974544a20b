"""Breaks things on purpose, at a site of its own, and reports what the clients saw."""
