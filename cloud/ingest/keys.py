"""The cloud's private keys that gateways wrap their epochs to, by id.

Several at once: a new key is given to ingest first, then to the gateways, and the old one stays
until no gateway has an epoch of it any more. Which ones are held is told in Welcome.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from vitals.epoch import WrappedEpoch, key_id, unwrap
from vitals.errors import EpochError


class CloudKeys:
    """Private keys by id."""

    def __init__(self, private: Sequence[X25519PrivateKey]) -> None:
        """Take at least one."""
        self._keys = {key_id(one.public_key()): one for one in private}

    @property
    def ids(self) -> list[str]:
        """Return the ids, sorted."""
        return sorted(self._keys)

    def unwrap(self, epoch: WrappedEpoch) -> bytes:
        """Return the epoch's key; raise EpochError."""
        private = self._keys.get(epoch.key_id)
        if private is None:
            raise EpochError(f"epoch {epoch.epoch} is wrapped to key {epoch.key_id}, not held")
        return unwrap(epoch, private)
