"""What can go wrong with the lab itself, as opposed to what a firewall decides."""


class LabError(Exception):
    """The lab was asked for something it does not have, or is closed."""


class LabUnavailable(LabError):
    """This kernel or this user cannot make the lab: a test must fail, not pass over it."""


class PacketLost(LabError):
    """A packet never reached the interface it was meant for: no verdict can be given."""
