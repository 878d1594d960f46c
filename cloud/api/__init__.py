"""Api: FHIR R4 REST and the ward station, from Redis and the archive.

Law: an answer is whole or it is an error that says so; nothing stale is ever shown as live. Every
read is checked against a scope and a ward before data is opened.
"""
