"""Ingest: frames from gateways in, pseudonymous records in Kafka out, then the acknowledgement.

Law: a frame is acknowledged only when every record made of it is durable in Kafka.
"""
