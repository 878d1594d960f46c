"""The one error tree.

::

    VitalsError
    ├── FrameError            a sealed frame cannot be used
    │   ├── FrameMalformed    its bytes are not a frame
    │   ├── FrameForged       authentication failed: altered, wrong key, or wrong header
    │   └── FrameTooLarge     over limits.FRAME_BYTES_MAX
    ├── EpochError            an epoch key cannot be unwrapped (unknown key id, altered wrap)
    ├── SealError             a sealed value cannot be opened
    ├── SessionError          a session message is malformed or out of place
    ├── SettingsForged        pushed settings are not signed for this edge
    └── ConfigError           a configuration file is wrong; the message says where and what next

Every error carries a message that names the thing refused and the next step; none carries a
patient's value, name or number.
"""

from typing import Final

import msgspec


class VitalsError(Exception):
    """Base of every error this project raises on purpose."""


class FrameError(VitalsError):
    """A sealed frame cannot be used."""


class FrameMalformed(FrameError):
    """The bytes are not a frame of a known version."""


class FrameForged(FrameError):
    """The seal does not open: altered bytes, another key, or another header."""


class FrameTooLarge(FrameError):
    """The frame is over its byte limit."""


class EpochError(VitalsError):
    """An epoch key cannot be unwrapped."""


class SealError(VitalsError):
    """A sealed value cannot be opened."""


class SessionError(VitalsError):
    """A session message is malformed or out of place."""


class SettingsForged(VitalsError):
    """Pushed settings are not signed for this edge by the key it knows."""


class ConfigError(VitalsError):
    """A configuration file is wrong; the message says where, what, and what to do."""


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for hostile bytes: not the shape, text not UTF-8, nested too deep."""
