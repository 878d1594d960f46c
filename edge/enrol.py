"""``healthsync edge enrol``: a key made here, a one-time token, a certificate installed.

Law: the token goes only to a server that was verified; the key is on the disk before the request
leaves and never leaves itself. Stopped at any point, the same command goes on. Prints codes and
next steps, no token.
"""

import base64
import hashlib
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

from edge import clock_floor, est, est_call
from edge.certificate_store import (
    ENROL,
    RENEW,
    Attempt,
    Authority,
    CertificateStore,
    Held,
    bundle,
    make_attempt,
)
from edge.config import Config
from edge.est import EstError, NotNow
from edge.est_call import Server
from edge.haproxy_socket import HaproxySocket
from healthsync.runtime import clock
from healthsync.runtime import config as files
from healthsync.runtime.exits import Exit
from healthsync.runtime.haproxy import HaproxyError
from vitals.enrolment import PATH
from vitals.errors import ConfigError

FILE_BYTES_MAX: Final = 64 * 1024
TOKEN_CHARS_MAX: Final = 256


class Enrolment(msgspec.Struct, frozen=True):
    """The file; keys that are not known here are a newer authority's and left alone."""

    name: str
    token: str
    est: str
    ca: str
    expires: Annotated[datetime, msgspec.Meta(tz=True)]


def read(path: Path, config: Config) -> Enrolment:
    """Return the checked file; raise ConfigError."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{path}: over {FILE_BYTES_MAX} bytes; this is no enrolment file")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({type(error).__name__}); give --file ENROLMENT.toml"
        ) from error
    found = files.load(path, Enrolment)
    if found.name != config.edge_id:
        raise ConfigError(
            f"{path}: is for {found.name!r} and edge_id is {config.edge_id!r};"
            " take this gateway's own file, or mend edge_id"
        )
    token = found.token
    if not 1 <= len(token) <= TOKEN_CHARS_MAX or not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{path}: token is not as the authority makes it; ask for a new file")
    est_call.context(found.ca)
    est_call.server(found.est, found.ca)
    return found


def now_ms(config: Config) -> int:
    """Return the time, never before the floor."""
    return max(clock.now_ms(), clock_floor.read(config))


def run(config: Config, file: Path | None, say: Callable[[str], None] = print) -> int:
    """Enrol with ``file``, or make a placeholder without; return an exit code."""
    if not config.certificate.folder:
        raise ConfigError("[certificate] folder is not set: where is gateway.pem to lie?")
    store = CertificateStore(Path(config.certificate.folder))
    try:
        store.prepare()
        if file is None:
            made = store.ensure_placeholder(config.edge_id)
            say(f"{store.path}: {'placeholder made' if made else 'there is one, left as it is'}")
            return Exit.OK
        held = _enrol(config, store, file)
    except NotNow as error:
        print(f"not yet: {error}\nthe key is kept; give the same command again", file=sys.stderr)
        return Exit.UNAVAILABLE
    except EstError as error:
        print(f"refused: {error}", file=sys.stderr)
        return Exit.FAILED
    except OSError as error:
        name = type(error).__name__
        raise ConfigError(
            f"{store.folder}: cannot be written ({name}); use sudo, or try again"
        ) from error
    say(f"{store.path}: certificate of {config.edge_id}, serial {held.serial},")
    say(f"  until {est.moment(held.ends_ms):%Y-%m-%d %H:%M:%S} UTC")
    say(_tell(config, store, held))
    if not _destroy(file):
        say(f"{file}: could not be destroyed; remove it, its token is used up")
    return Exit.OK


def _enrol(config: Config, store: CertificateStore, file: Path) -> Held:
    """Return what is installed; raise EstError, ConfigError or OSError."""
    now = now_ms(config)
    enrolment = read(file, config)
    digest = hashlib.sha256(enrolment.token.encode()).hexdigest()
    attempt, held = store.attempt(ENROL), _held(store)
    if attempt is not None and _is_of(held, attempt):
        store.end_attempt(ENROL)
        if held is not None and attempt.token == digest:
            return held  # stopped after the certificate was installed, before this
        attempt = None
    if enrolment.expires <= est.moment(now):
        raise ConfigError(
            f"{file}: expired; ask for a new one, or set this machine's clock if it is ahead"
        )
    if attempt is None or attempt.token != digest:
        attempt = make_attempt(config.edge_id, token=digest)
        store.keep_attempt(ENROL, attempt)
    at = est_call.server(enrolment.est, enrolment.ca)
    known = _known(at, now)
    basic = base64.b64encode(f"{enrolment.name}:{enrolment.token}".encode()).decode()
    headers = (*est_call.PKCS10, ("authorization", f"Basic {basic}"))
    body = est.to_body(attempt.der)
    answer = est_call.call(at, "POST", f"{PATH}simpleenroll", headers, body, now_ms=now)
    est.outcome(answer.status, answer.retry_after, answer.body)
    key = attempt.private
    found = est.read_certificates(answer.body)
    chain = est.accept(found, config.edge_id, key.public_key(), known.certificates, now)
    raw = bundle(chain, key)
    authority = Authority(known.chain, enrolment.est, enrolment.ca)
    store.keep_authority(authority)
    store.install(raw)
    store.end_attempt(RENEW)
    store.end_attempt(ENROL)
    installed = store.held()
    if installed is None:
        raise FileNotFoundError
    return installed


def _is_of(held: Held | None, attempt: Attempt) -> bool:
    return held is not None and held.key.public_key() == attempt.private.public_key()


def _held(store: CertificateStore) -> Held | None:
    try:
        return store.held()
    except ValueError:
        return None


def _known(at: Server, now: int) -> Authority:
    """Ask a verified server for the authority that issues to gateways."""
    answer = est_call.call(at, "GET", f"{PATH}cacerts", now_ms=now)
    est.outcome(answer.status, answer.retry_after, answer.body)
    found = est.read_certificates(answer.body)
    if not any(est.self_signed(one) for one in found):
        raise est.NotTrusted("answer-no-root", "cacerts names no root; report it")
    return Authority(est_call.pem(found))


def _tell(config: Config, store: CertificateStore, held: Held) -> str:
    address = config.certificate.haproxy_socket
    if not address:
        return "HAProxy has not been told (no haproxy_socket): systemctl reload haproxy"
    try:
        HaproxySocket(address, str(store.path)).use(held.raw)
    except HaproxyError:
        return "HAProxy has not been told (its socket does not answer): edge run tries again"
    return "HAProxy uses it from its next connection on"


def _destroy(file: Path) -> bool:
    """Overwrite and remove; return False when that was not possible."""
    try:
        with file.open("r+b") as held:
            held.write(bytes(min(file.stat().st_size, FILE_BYTES_MAX)))
            held.flush()
            os.fsync(held.fileno())
        file.unlink()
    except OSError:
        return False
    return True
