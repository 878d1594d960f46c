"""``healthsync cloud deliver``: topic ``fhir`` to any FHIR R4 server, in order, nothing lost.

`bundle`, `answer` and `address` are pure; `consume` and `letters` speak to Kafka, `connection` to
the servers.
"""
