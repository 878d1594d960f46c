"""Bedside devices: shell scripts with nc and openssl, and replay of recorded patients."""
