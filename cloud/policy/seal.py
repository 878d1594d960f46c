"""From a policy that people wrote to one that may leave their desk: pseudonyms, no words, a hash.

Law: nothing that a person wrote about a person is in a published text. Record numbers and devices
are ingest's pseudonyms; a clinician's name and reason are keyed marks, which prove later what
stood in the file without saying it; an age is only what NEWS2 asks of it. Beds and patients come
in the order of their pseudonyms, not of the file.

A published version is ``VERSION+HASH``, the hash being of the text, so that two texts never share
one. It is taken of bytes and not of fields: a later release that knows more fields still agrees.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from cloud.policy.bounds import ADULT_YEARS, TEXT_BYTES_MAX
from cloud.policy.check import check, is_sealed
from cloud.policy.model import Bed, Patient, Policy
from cloud.policy.text import read, write
from vitals import pseudonym
from vitals.errors import ConfigError

HASH_HEX: Final = 16

_FIRST_LINE: Final = re.compile(rf'version = "([A-Za-z0-9._-]{{1,40}})\+([0-9a-f]{{{HASH_HEX}}})"')


class Published(NamedTuple):
    """What goes to Kafka."""

    version: str
    text: str


def seal(policy: Policy, key: bytes, path: str = "policy") -> Policy:
    """Return a checked policy with everybody by pseudonym, under ingest's subject key.

    Raises ConfigError when two entries turn out to be for one and the same.
    """
    beds = sorted((_bed(bed, key) for bed in policy.beds), key=lambda bed: bed.device_id)
    _ensure_one_each("bed", [bed.device_id for bed in beds], path)
    patients = sorted((_patient(one, key) for one in policy.patients), key=lambda one: one.subject)
    _ensure_one_each("patient", [patient.subject for patient in patients], path)
    return check(msgspec.structs.replace(policy, beds=tuple(beds), patients=tuple(patients)), path)


def publish(sealed: Policy, path: str = "policy") -> Published:
    """Return version and text of a sealed policy; raise ConfigError for what may not leave."""
    if not is_sealed(sealed):
        raise ConfigError(f"{path}: names somebody in clear; seal it first")
    base = sealed.version.partition("+")[0]
    body = write(sealed).partition("\n")[2]
    version = f"{base}+{_hash(base, body)}"
    text = f'version = "{version}"\n{body}'
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise ConfigError(
            f"{path}: has more than {TEXT_BYTES_MAX} bytes once sealed; limits that many patients"
            " share belong to a ward"
        )
    return Published(version, text)


def open_published(text: str) -> Policy:
    """Return the policy of a published text; raise ConfigError if it is not as it was published."""
    first, _, body = text.partition("\n")
    found = _FIRST_LINE.fullmatch(first)
    if found is None or _hash(found[1], body) != found[2]:
        raise ConfigError("published policy: its version is not of its text; push it again")
    policy = read(text.encode(), "published policy")
    if not is_sealed(policy):
        raise ConfigError("published policy: names somebody in clear; push it again")
    return policy


def _hash(base: str, body: str) -> str:
    return hashlib.sha256(f"{base}\n{body}".encode()).hexdigest()[:HASH_HEX]


def _bed(bed: Bed, key: bytes) -> Bed:
    if not bed.device:
        return bed
    name = pseudonym.device_id(key, bed.gateway, bed.device)
    return msgspec.structs.replace(bed, device="", device_id=name)


def _patient(patient: Patient, key: bytes) -> Patient:
    subject = patient.subject or pseudonym.patient_subject(key, patient.mrn)
    under_16 = patient.under_16
    if patient.age_years is not None:
        under_16 = patient.age_years < ADULT_YEARS
    return msgspec.structs.replace(
        patient,
        mrn="",
        subject=subject,
        age_years=None,
        under_16=under_16 or None,
        by=_mark(key, patient.by),
        why=_mark(key, patient.why),
    )


def _mark(key: bytes, words: str) -> str:
    """Return what stands for a text; one that is a mark already stays, so that sealing repeats."""
    if not words or re.fullmatch(rf"[0-9a-f]{{{pseudonym.SUBJECT_HEX}}}", words):
        return words
    return pseudonym.text_mark(key, words)


def _ensure_one_each(kind: str, names: Sequence[str], path: str) -> None:
    for one, next_ in itertools.pairwise(names):
        if one == next_:
            raise ConfigError(f"{path}: two entries of {kind} are for {one}; keep one")
