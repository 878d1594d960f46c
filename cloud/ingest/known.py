"""Which associations this process has already told Kafka, so that a ward is not told each second.

Law: a new or changed association is always told; an old frame never undoes a newer one; the
memory is bounded, and forgetting only costs a repeated record (the topic is compacted).
"""

from collections import OrderedDict
from typing import Final

import msgspec

from cloud.ingest.split import Association
from vitals.reading import Patient

# Associations remembered: 16 hospitals of 1,000 beds with a change of patient each day.
KNOWN_MAX: Final = 16_384


class _Known(msgspec.Struct):
    said: Patient
    time_ms: int


def merge(older: Patient, newer: Patient) -> Patient:
    """Return ``newer`` with what it leaves empty taken from ``older``.

    A bedside line may carry the name once and only the MRN after that.
    """
    filled = {
        field: getattr(newer, field) or getattr(older, field) for field in Patient.__struct_fields__
    }
    return Patient(**filled)


class KnownAssociations:
    """(subject, device) -> what was last said; subject -> the merged patient last told."""

    def __init__(self, size: int = KNOWN_MAX) -> None:
        """Remember at most ``size`` associations."""
        self._size = size
        self._said: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._told: OrderedDict[str, Patient] = OrderedDict()

    def news(self, found: Association) -> Patient | None:
        """Return the patient to tell Kafka, or None when there is nothing new.

        What is told is merged with what was told of the subject before. Two devices that
        contradict each other on one patient are told once each, not in turns for ever.
        """
        key = (found.subject, found.device)
        known = self._said.get(key)
        if known is not None:
            self._said.move_to_end(key)
            if found.time_ms < known.time_ms:
                return None
            known.time_ms = found.time_ms
            if known.said == found.patient:
                return None
            known.said = found.patient
        else:
            self._said[key] = _Known(found.patient, found.time_ms)
            if len(self._said) > self._size:
                self._said.popitem(last=False)
        told = self._told.get(found.subject, Patient())
        merged = merge(told, found.patient)
        if known is not None and merged == told:
            return None
        self._told[found.subject] = merged
        self._told.move_to_end(found.subject)
        if len(self._told) > self._size:
            self._told.popitem(last=False)
        return merged

    def forget(self) -> None:
        """Forget everything: records may not have arrived, so all is told again."""
        self._said.clear()
        self._told.clear()
