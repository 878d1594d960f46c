"""The list of revoked gateway certificates, from who signs it to HAProxy and ingest."""
