"""Recorded patients as data: see README.md and ATTRIBUTION.md."""
