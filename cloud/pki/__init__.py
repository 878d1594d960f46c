"""Certificates of gateways: a root that is kept offline, an issuing authority, enrolment by EST."""
