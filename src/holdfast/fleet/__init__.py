"""Keeps replicas alive and publishes the roster."""
