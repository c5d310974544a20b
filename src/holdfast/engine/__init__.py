"""Speaks to inference engines: one room an engine, one contract (domain.ports.Engine)."""
