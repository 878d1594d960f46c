"""What can go wrong between the archive and its store.

::

    VitalsError
    └── ArchiveError
        ├── StoreUnavailable   S3 or KMS does not answer now: try again later
        ├── StoreRefused       S3 or KMS says no, and will again: rights, bucket, configuration
        ├── NameTaken          another file of that name is there already: continue from it
        └── ArchiveDamaged     a file is not what its name says, or does not open
"""

from vitals.errors import VitalsError


class ArchiveError(VitalsError):
    """Base of the archive's errors."""


class StoreUnavailable(ArchiveError):
    """S3 or KMS does not answer, or answers that it cannot now."""


class StoreRefused(ArchiveError):
    """S3 or KMS refuses for a reason that waiting does not cure."""


class NameTaken(ArchiveError):
    """The object exists; it is never overwritten."""


class ArchiveDamaged(ArchiveError):
    """A file does not open, or is not the file its name says."""
