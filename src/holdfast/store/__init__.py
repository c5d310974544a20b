"""Keeps things on disk: snapshots and run files."""
