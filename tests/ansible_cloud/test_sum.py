"""A secret on a host is compared with what a vault's file holds, not with the file."""

import hashlib
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools" / "provision" / "bin"
RUN_S_MAX = 120
# As a key is: bytes that are no text, and an end that a lookup of text would cut off.
SECRET = bytes(range(256)) + b"\n"


def test_a_vault_s_file_has_the_sum_of_its_content(tmp_path: Path) -> None:
    def run(command: str, *arguments: str) -> str:
        done = subprocess.run(
            [TOOLS / command, *arguments, "--vault-password-file", str(password)],
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_S_MAX,
            cwd=ROOT / "ansible",
            env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    plain, sealed, password = (tmp_path / name for name in ("plain", "sealed", "password"))
    password.write_text("one of the test's own\n")
    for file in (plain, sealed):
        file.write_bytes(SECRET)
    run("ansible-vault", "encrypt", str(sealed))
    assert sealed.read_bytes().startswith(b"$ANSIBLE_VAULT;")
    for file in (plain, sealed):
        asked = f"msg={{{{ lookup('healthsync_sum', '{file}') }}}}"
        said = run("ansible", "localhost", "--module-name", "debug", "--args", asked)
        assert hashlib.sha256(SECRET).hexdigest() in said
