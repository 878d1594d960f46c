"""Reaches a Molecule container by entering its namespaces, one small process a task.

`podman exec` costs 0.2 s of an idle machine and the collection's plugin needs five of them a task;
entering costs 10 ms, and a module or a file comes in by standard input.

Law: nothing runs outside of the container. The process entered must be in the very control group
that podman made for the container of this host's name, and what is run keeps no capability that
the container has not.
"""

import os
import shlex
import subprocess
from pathlib import Path
from typing import ClassVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: healthsync_container
short_description: Run tasks in a podman container of Molecule
description: The container is named as the host is; molecule/shared/create.yml wrote where it runs.
options: {}
"""

RUNNING = Path(os.environ.get("HEALTHSYNC_RUNNING", "/nonexistent")) / "hosts"
"""NAME.pid and NAME.cid, written by podman; molecule/shared/podman-env.sh says where."""

CALL_S_MAX = 600
"""Longer than any task of a role; a call that hangs ends with it."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


class Connection(ConnectionBase):
    """One container; nothing stays open between two calls."""

    transport = "healthsync_container"
    has_pipelining = True
    always_pipeline_modules = True
    default_user: ClassVar[None] = None

    def _connect(self) -> "Connection":
        """Find the container's first process; raise when it is not the container's."""
        name = str(self._play_context.remote_addr)
        try:
            pid = int((RUNNING / f"{name}.pid").read_text())
            container = (RUNNING / f"{name}.cid").read_text().strip()
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            status = Path(f"/proc/{pid}/status").read_text()
        except (OSError, ValueError) as error:
            raise AnsibleConnectionFailure(f"{name} does not run: {error}") from error
        if not container or f"libpod-{container}" not in groups:
            raise AnsibleConnectionFailure(f"{name} does not run: {pid} is another process by now")
        (bounds,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")]
        kept = [f"+cap_{bit}" for bit in range(64) if int(bounds, 16) >> bit & 1]
        self._enter = [
            *("nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid"),
            *("--root", "--wdns=/root", "setpriv", "--bounding-set", ",".join(["-all", *kept])),
        ]
        self._connected = True
        return self

    def _run(self, arguments: list[str], given: bytes | None = None) -> tuple[int, bytes, bytes]:
        if not self._connected:
            self._connect()
        try:
            done = subprocess.run(
                self._enter + arguments,
                input=given or b"",
                env=ENVIRONMENT,
                capture_output=True,
                check=False,
                timeout=CALL_S_MAX,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AnsibleConnectionFailure(f"nsenter: {error}") from error
        return done.returncode, done.stdout, done.stderr

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Run a shell line in the container."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(shlex.split(cmd), in_data)

    def put_file(self, in_path: str, out_path: str) -> None:
        """Write a file in the container."""
        super().put_file(in_path, out_path)
        write = ["/bin/sh", "-c", f"cat >{shlex.quote(out_path)}"]
        code, _, error = self._run(write, Path(in_path).read_bytes())
        if code:
            raise AnsibleError(f"{out_path} cannot be written: {error.decode(errors='replace')}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Read a file of the container."""
        super().fetch_file(in_path, out_path)
        code, content, error = self._run(["/bin/cat", in_path])
        if code:
            raise AnsibleError(f"{in_path} cannot be read: {error.decode(errors='replace')}")
        Path(out_path).write_bytes(content)

    def reset(self) -> None:
        """Look for the container anew."""
        self._connected = False

    def close(self) -> None:
        """Note that nobody uses it."""
        self._connected = False
