"""``healthsync cloud detect``: samples in; FHIR, alerts and state out, exactly once.

Only `engine` speaks to Kafka; everything it decides with is pure.
"""
