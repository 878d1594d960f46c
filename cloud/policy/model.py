"""The shape of a policy file: what is watched for, and who changes it for whom.

Law: shape only; `cloud.policy.check` says what a policy must be, `cloud.policy.resolve` what it
means for one subject. Values are in the vital's unit (vitals/codes.py), times in seconds. Stored
texts are read by later releases: fields are only added, with a default that changes nothing.

Layers, later wins field by field: site (the top of the file), ward, bed, patient, and at last a
limit set by command. What a layer leaves out (UNSET) is the layer's below.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

Direction = Literal["low", "high"]
Trending = Literal["falling", "rising"]
Priority = Literal["high", "medium", "low"]

RANK: Final[dict[str, int]] = {"low": 1, "medium": 2, "high": 3}
"""Priorities by urgency."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One limit of one vital. Two priorities a side may stand together."""

    vital: str
    direction: Direction
    limit: float
    """low: values below it are a breach; high: values above it."""
    priority: Priority
    delay_s: float = 10.0
    """How long every value must be a breach before the alert is raised."""
    hysteresis: float = 0.0
    """How far inside the limit a value must be to count as recovered."""
    clear_delay_s: float = 5.0
    """How long values must be recovered before the alert ends."""
    late_s: float = 60.0
    """A reading this much older than its arrival at the cloud is late: it rings nothing."""

    @property
    def name(self) -> str:
        """Return the rule's stable name, unique in a policy."""
        return f"{self.vital}.{self.direction}.{self.priority}"


class SignalLoss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A continuous vital that its monitor reports as missing, or stops sending: sensor off."""

    enabled: bool = True
    delay_s: float = 10.0
    clear_delay_s: float = 5.0
    late_s: float = 60.0
    stale_s: float = 30.0
    """Not sent for so long while its device goes on sending: missing too."""
    priority: Priority = "low"


class Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device that says nothing, or a gateway nobody hears of."""

    enabled: bool = True
    after_s: float = 60.0
    """A device is silent when nothing of it was measured for so long."""
    forget_s: float = 1800.0
    """The alert ends after so long: nobody is watched there any more."""
    gateway_s: float = 30.0
    """A gateway is lost when ingest has not vouched for it for so long."""
    priority: Priority = "medium"


class Trend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change over minutes of a continuous vital."""

    vital: str
    direction: Trending
    change: float
    """In the vital's unit, above 0, within the window."""
    window_min: float
    priority: Priority

    @property
    def name(self) -> str:
        """Return the trend's stable name, unique in a policy."""
        return f"{self.vital}.{self.direction}"


class News2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """NEWS2 (Royal College of Physicians 2017). A value older than its age is missing."""

    enabled: bool = True
    medium_at: int = 5
    medium_priority: Priority = "medium"
    high_at: int = 7
    high_priority: Priority = "high"
    single_red: bool = False
    """Raise an alert for 3 points in one parameter, whatever the total."""
    red_priority: Priority = "low"
    pulse_s: float = 300.0
    spo2_s: float = 300.0
    resp_rate_s: float = 300.0
    systolic_s: float = 21_600.0
    temperature_s: float = 21_600.0
    consciousness_s: float = 21_600.0
    oxygen_s: float = 21_600.0


class Qsofa(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Quick SOFA: respiratory rate >= 22, systolic <= 100, consciousness not alert."""

    enabled: bool = False
    at: int = 2
    priority: Priority = "medium"


class ShockIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pulse divided by systolic pressure."""

    enabled: bool = False
    at: float = 0.9
    priority: Priority = "medium"


class Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores over several vitals."""

    news2: News2 = News2()
    qsofa: Qsofa = Qsofa()
    shock_index: ShockIndex = ShockIndex()


class Artefact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Doubts about a value: marked on the alert, which rings all the same."""

    enabled: bool = True


class Life(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to a raised alert. Without defaults: a priority's table is given whole."""

    latch: bool
    """Stays until it is acknowledged, even when its condition has ended."""
    escalate_s: tuple[float, ...]
    """Nobody answered for so long since it was raised: one level up each."""
    acknowledge_s: float
    """An acknowledgement holds so long while the condition lasts; then the alert asks again."""
    shelve_s_max: float
    """The longest shelving."""
    flap_count: int
    """Raised so often within ``flap_s``: one standing alert instead."""
    flap_s: float


class LifeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The life of an alert by its priority; reasons in default.toml."""

    high: Life = Life(
        latch=True,
        escalate_s=(120.0, 300.0),
        acknowledge_s=600.0,
        shelve_s_max=1800.0,
        flap_count=5,
        flap_s=900.0,
    )
    medium: Life = Life(
        latch=False,
        escalate_s=(300.0, 900.0),
        acknowledge_s=1800.0,
        shelve_s_max=7200.0,
        flap_count=5,
        flap_s=900.0,
    )
    low: Life = Life(
        latch=False,
        escalate_s=(1800.0,),
        acknowledge_s=3600.0,
        shelve_s_max=28_800.0,
        flap_count=5,
        flap_s=900.0,
    )


class Charting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which readings become Observations."""

    mode: Literal["every", "minute"] = "every"
    around_alarm_s: float = 300.0
    """With ``minute``: every reading so long before and after an alert all the same."""


# What a layer changes. Every field but the name is left out unless it changes something. ----------


class RuleChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fields of the rule of that name; a rule that no layer below has is a new one."""

    vital: str
    direction: Direction
    priority: Priority
    limit: float | UnsetType = UNSET
    delay_s: float | UnsetType = UNSET
    hysteresis: float | UnsetType = UNSET
    clear_delay_s: float | UnsetType = UNSET
    late_s: float | UnsetType = UNSET
    off: bool | UnsetType = UNSET

    @property
    def name(self) -> str:
        """Return the name of the rule it changes."""
        return f"{self.vital}.{self.direction}.{self.priority}"


class TrendChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fields of the trend of that name, or a new one."""

    vital: str
    direction: Trending
    change: float | UnsetType = UNSET
    window_min: float | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    off: bool | UnsetType = UNSET

    @property
    def name(self) -> str:
        """Return the name of the trend it changes."""
        return f"{self.vital}.{self.direction}"


class SignalLossChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of `SignalLoss`."""

    enabled: bool | UnsetType = UNSET
    delay_s: float | UnsetType = UNSET
    clear_delay_s: float | UnsetType = UNSET
    late_s: float | UnsetType = UNSET
    stale_s: float | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET


class SilenceChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of `Silence`; ``gateway_s`` in wards only."""

    enabled: bool | UnsetType = UNSET
    after_s: float | UnsetType = UNSET
    forget_s: float | UnsetType = UNSET
    gateway_s: float | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET


class News2Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of `News2`."""

    enabled: bool | UnsetType = UNSET
    medium_at: int | UnsetType = UNSET
    medium_priority: Priority | UnsetType = UNSET
    high_at: int | UnsetType = UNSET
    high_priority: Priority | UnsetType = UNSET
    single_red: bool | UnsetType = UNSET
    red_priority: Priority | UnsetType = UNSET
    pulse_s: float | UnsetType = UNSET
    spo2_s: float | UnsetType = UNSET
    resp_rate_s: float | UnsetType = UNSET
    systolic_s: float | UnsetType = UNSET
    temperature_s: float | UnsetType = UNSET
    consciousness_s: float | UnsetType = UNSET
    oxygen_s: float | UnsetType = UNSET


class QsofaChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of `Qsofa`."""

    enabled: bool | UnsetType = UNSET
    at: int | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET


class ShockIndexChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of `ShockIndex`."""

    enabled: bool | UnsetType = UNSET
    at: float | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET


class ScoresChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of `Scores`."""

    news2: News2Change | UnsetType = UNSET
    qsofa: QsofaChange | UnsetType = UNSET
    shock_index: ShockIndexChange | UnsetType = UNSET


class Overrides(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    cache_hash=True,
):
    """What a ward, a bed or a patient has otherwise."""

    rules: tuple[RuleChange, ...] = msgspec.field(default=(), name="rule")
    trends: tuple[TrendChange, ...] = msgspec.field(default=(), name="trend")
    signal_loss: SignalLossChange | UnsetType = UNSET
    silence: SilenceChange | UnsetType = UNSET
    scores: ScoresChange | UnsetType = UNSET


class Ward(Overrides, frozen=True, kw_only=True):
    """Everybody behind some gateways."""

    name: str
    gateways: tuple[str, ...]


class Bed(Overrides, frozen=True, kw_only=True):
    """Whoever is on one device. People name it by device and gateway, published texts by id."""

    gateway: str = ""
    device: str = ""
    """Name in clear; needs ``gateway``."""
    device_id: str = ""
    """Pseudonym, 32 hex digits."""


class Patient(Overrides, frozen=True, kw_only=True):
    """One patient. People name them by record number, published texts by pseudonym."""

    mrn: str = ""
    """In clear."""
    subject: str = ""
    """Pseudonym, 32 hex digits."""
    spo2_scale: Literal[1, 2] | UnsetType = UNSET
    """NEWS2 scale; 2 only by a clinician's decision (RCP 2017), never inferred."""
    by: str = ""
    """The clinician; required for scale 2."""
    why: str = ""
    """The reason; required for scale 2."""
    age_years: int | None = None
    """Published as ``under_16`` only."""
    under_16: bool | None = None
    """True: NEWS2 does not apply (RCP 2017)."""
    pregnant: bool = False
    """True: NEWS2 does not apply (RCP 2017)."""
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """When all of this ends; None: never."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, cache_hash=True):
    """Everything the detectors decide by."""

    version: str
    """Stands in every alert event; published with a hash of the text (cloud/policy/seal.py)."""
    rules: tuple[Rule, ...] = msgspec.field(name="rule")
    gap_s: float = 30.0
    """Longer without a counted value, and a delay starts anew; an alert stays as it was."""
    signal_loss: SignalLoss = SignalLoss()
    silence: Silence = Silence()
    scores: Scores = Scores()
    artefact: Artefact = Artefact()
    life: LifeTable = LifeTable()
    charting: Charting = Charting()
    trends: tuple[Trend, ...] = msgspec.field(default=(), name="trend")
    wards: tuple[Ward, ...] = msgspec.field(default=(), name="ward")
    beds: tuple[Bed, ...] = msgspec.field(default=(), name="bed")
    patients: tuple[Patient, ...] = msgspec.field(default=(), name="patient")


def given(change: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that a layer says anything about."""
    return {
        name: value
        for name in change.__struct_fields__
        if (value := getattr(change, name)) is not UNSET
    }
