"""Messages that a sender repeats because its acknowledgement was lost.

Law: sans-IO, bounded. The same control id with the same content gets the same answer and makes no
second reading; the same control id with other content is a conflict.
"""


class Repeats:
    """What each sender sent last, by control id and digest."""
