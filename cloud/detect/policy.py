"""What is watched for: the rules, their defaults, and the file that may replace them.

Law: a policy that could never clear, or never raise, is refused when it is loaded.

Defaults: SpO2 below 90 % for 10 s as the product promises. The others stand at the edge of the
red band of NEWS2 (Royal College of Physicians 2017: pulse >= 131 or <= 40, respiratory rate <= 8)
or of its 2-point band (temperature >= 39.1), on the quiet side where the two meet, and inside
what a defibrillator monitor ships with (LIFEPAK 15: HR 50-150, RR 5-30, T 35-39). They are
starting points: limits belong to the ward, hence the file.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from healthsync.runtime.config import load
from vitals.codes import BY_NAME
from vitals.errors import ConfigError

Direction = Literal["low", "high"]
Priority = Literal["high", "medium", "low"]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One limit of one vital. Values in the vital's unit, times in seconds of event time."""

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
        """Return the rule's stable name, which the state topic is keyed by."""
        return f"{self.vital}.{self.direction}"

    def breach(self, value: float) -> bool:
        """Tell whether the value is beyond the limit."""
        return value < self.limit if self.direction == "low" else value > self.limit

    def recovered(self, value: float) -> bool:
        """Tell whether the value is back inside by the hysteresis."""
        if self.direction == "low":
            return value >= self.limit + self.hysteresis
        return value <= self.limit - self.hysteresis

    def worse(self, value: float, than: float) -> bool:
        """Tell whether ``value`` is further out."""
        return value < than if self.direction == "low" else value > than


class SignalLoss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A continuous vital that its monitor reports as missing: sensor off. Times in seconds."""

    enabled: bool = True
    delay_s: float = 10.0
    clear_delay_s: float = 5.0
    late_s: float = 60.0
    priority: Priority = "low"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the detectors decide by."""

    version: str
    """Stands in every alert event."""
    rules: list[Rule]
    signal_loss: SignalLoss = SignalLoss()
    gap_s: float = 30.0
    """Longer without a counted value, and a delay starts anew; an alert stays as it was."""


DEFAULT: Final = Policy(
    version="default-1",
    rules=[
        Rule("spo2", "low", 90, "high", hysteresis=1),
        Rule("heart_rate", "high", 130, "medium", hysteresis=5),
        Rule("heart_rate", "low", 40, "high", hysteresis=2),
        Rule("resp_rate", "low", 8, "high", hysteresis=1),
        # Taken now and then: one value raises, one clears, and a value entered some minutes
        # after it was measured is still news.
        Rule("temperature", "high", 39.0, "low", 0, 0.2, 0, late_s=900),
    ],
)


def check(policy: Policy) -> Policy:
    """Return the policy; raise ConfigError for one that cannot work."""
    seen: set[str] = set()
    if policy.gap_s <= 0:
        raise ConfigError("policy: gap_s must be above 0")
    loss = policy.signal_loss
    if min(loss.delay_s, loss.clear_delay_s, loss.late_s) < 0:
        raise ConfigError("policy signal_loss: times must not be below 0")
    for rule in policy.rules:
        vital = BY_NAME.get(rule.vital)
        if vital is None:
            raise ConfigError(f"policy rule {rule.name}: no such vital; see vitals/codes.py")
        if rule.name in seen:
            raise ConfigError(f"policy rule {rule.name}: given twice; keep one")
        seen.add(rule.name)
        if min(rule.delay_s, rule.clear_delay_s, rule.late_s, rule.hysteresis) < 0:
            raise ConfigError(f"policy rule {rule.name}: times and hysteresis must not be below 0")
        if not vital.continuous and (rule.delay_s or rule.clear_delay_s):
            raise ConfigError(
                f"policy rule {rule.name}: {rule.vital} is taken now and then, so that no delay"
                " would ever be over; set delay_s = 0 and clear_delay_s = 0"
            )
        back = rule.limit + (rule.hysteresis if rule.direction == "low" else -rule.hysteresis)
        if not vital.low <= back <= vital.high or not vital.low <= rule.limit <= vital.high:
            raise ConfigError(f"policy rule {rule.name}: no value could ever clear it")
    return policy


def load_policy(path: Path | None) -> Policy:
    """Return the policy of a TOML file, or the defaults; raise ConfigError."""
    return check(DEFAULT if path is None else load(path, Policy))


check(DEFAULT)
