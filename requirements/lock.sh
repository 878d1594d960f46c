#!/usr/bin/env bash
# Makes the locked requirement files from pyproject.toml: versions and hashes, no addresses.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock() {
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url "$@"
}

lock pyproject.toml --extra edge --extra firewall --output-file requirements/edge.txt
lock pyproject.toml --extra cloud --extra firewall --output-file requirements/cloud.txt
lock pyproject.toml --all-extras --output-file requirements/dev.txt
lock requirements/build.in --output-file requirements/build.txt
lock requirements/provision.in --output-file requirements/provision.txt
