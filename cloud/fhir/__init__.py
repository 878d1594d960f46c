"""FHIR R4 (4.0.1) leaves of the cloud, as bytes.

Law: pure. No clock, no I/O, no server's library. ``fhir.resources`` (R4B models) makes and checks
every Observation template once, at import; a reading only fills a template's slots, so that the
hot path costs microseconds and never runs pydantic. HL7's R4 4.0.1 validator judges the outcome
in tests/validator.
"""
