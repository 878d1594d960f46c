"""How alerts of one priority behave: what a policy says, and the life cycle asks."""

import msgspec


class Manners(msgspec.Struct, frozen=True):
    """How alerts of one priority behave. Times in milliseconds."""

    latch: bool
    """Stays, as latched, after the condition ended, until somebody acknowledges it."""
    escalate_ms: tuple[int, ...]
    """One entry a level: how long it rings unanswered, from the raise or the level before."""
    acknowledge_ms: int
    """An acknowledgement counts so long while the condition stays true; 0: for ever."""
    shelve_ms_max: int
    """A shelving is cut to this; 0: no shelving."""
    flap_count: int
    """So many raises within ``flap_ms`` make one standing alert; below 2: no guard."""
    flap_ms: int
