"""Starts and stops processes, and tells the time."""
