"""The session between gateway and ingest as a whole."""
