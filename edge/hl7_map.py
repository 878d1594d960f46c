"""A vendor's own codes: from a TOML file to vital signs.

Law: pure but for `load`; a mapping adds meaning to codes that have none here, and never changes
what an MDC or LOINC code of the code table means.
"""

from typing import Final

import msgspec


class VendorMap(msgspec.Struct, frozen=True):
    """Local code, as OBX-3 carries it -> index of the vital sign."""

    codes: dict[str, int] = {}


NO_MAP: Final = VendorMap()
