"""The cloud's programs: ingest, detect, project, archive, api."""
