"""The ward gateway's program: collect, decode, normalize, spool, uplink."""
