"""The whole system on one machine with real servers."""
