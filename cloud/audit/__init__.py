"""Audit: is every acknowledged reading downstream exactly once? Reads every stage, changes none."""
