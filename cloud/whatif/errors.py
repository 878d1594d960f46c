"""What can be wrong with the data that a replay is given.

::

    VitalsError
    └── DataWrong    the input is no recorded data, empty, or too much of it
"""

from vitals.errors import VitalsError


class DataWrong(VitalsError):
    """Says which file and line, what is wrong, and what to do. Never a value or a name."""
