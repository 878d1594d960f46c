"""Keeps pushed settings: takes, tries, keeps or rolls back, and remembers over a restart.

Law: what is in use is on the disk before ingest is told; a start during a trial goes back to what
was kept; a file that does not verify is not used. Writes one file, whole or not at all.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.pushed import NOTHING, Counts, Pushed, Trial, understand
from healthsync.runtime import whole
from healthsync.runtime.log import Log
from vitals.errors import ConfigError, SettingsForged
from vitals.session import Settings
from vitals.settings import DOCUMENT_BYTES_MAX, verify

FILE_NAME: Final = "settings.json"
FILE_BYTES_MAX: Final = 4 * DOCUMENT_BYTES_MAX
REFUSED_KEPT: Final = 16
"""Versions remembered as no good; older ones are below the version in use by then."""

BEFORE_S: Final = 60.0
"""How long ago the share of refused inputs is taken from that a trial is held against."""

Outcome = tuple[int, str, str]
"""Version, outcome, detail: `vitals.session.Outcome`."""


class _Version(msgspec.Struct, frozen=True):
    version: int
    document: str
    key: str
    signature: str


class _File(msgspec.Struct):
    kept: _Version | None = None
    trial: _Version | None = None
    refused: list[int] = []


def _of(settings: Settings) -> _Version:
    signature = base64.b64encode(settings.signature).decode()
    return _Version(settings.version, settings.document.decode(), settings.key, signature)


def _back(version: _Version) -> Settings:
    signature = base64.b64decode(version.signature)
    return Settings(version.version, version.document.encode(), version.key, signature)


class PushedKeeper:
    """Made once; `start`, then `offered` for what comes and `watch` every second."""

    def __init__(
        self,
        edge: str,
        folder: Path,
        public: Ed25519PublicKey | None,
        counts: Callable[[], Counts],
        log: Log,
    ) -> None:
        """``public`` None: nothing is taken. ``counts``: inputs and refusals so far."""
        self._edge, self._path, self._public = edge, folder / FILE_NAME, public
        self._counts, self._log = counts, log
        self._state = _File()
        self._trial: Trial | None = None
        self._snapshots = [(0.0, Counts()), (0.0, Counts())]
        self.pushed = NOTHING
        """What is in use."""
        self.use: Callable[[Pushed], None] = lambda _pushed: None
        """Called with what is to be used from now on."""
        self.trouble = ""
        """Why the last settings that came are not in use; empty when they are."""

    @property
    def version(self) -> int:
        """Return the version in use, 0 for none."""
        current = self._state.trial or self._state.kept
        return 0 if current is None else current.version

    @property
    def on_trial(self) -> bool:
        """Tell whether what is in use may still be rolled back."""
        return self._state.trial is not None

    # -- over a restart -------------------------------------------------------------------------

    def start(self) -> Outcome | None:
        """Use what was kept; return what ingest is to be told, if anything."""
        if self._public is None:
            return None
        self._state = self._read()
        outcome: Outcome | None = None
        if self._state.trial is not None:
            version = self._state.trial.version
            outcome = (version, "rolled-back", "the gateway was started anew during the trial")
            self._give_up(version)
            self.trouble = f"version {version}: {outcome[2]}"
            self._log.warning("settings-rolled-back", version=version)
        kept = self._state.kept
        if kept is not None:
            try:
                self.pushed = self._checked(_back(kept))
            except (SettingsForged, ConfigError, ValueError) as error:
                self._log.error("settings-not-used", version=kept.version, error=_said(error))
                self._state.kept = None
        return outcome

    def _read(self) -> _File:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=_File)
        except FileNotFoundError:
            return _File()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._log.error("settings-unreadable", error=type(error).__name__)
            return _File()

    def _write(self) -> None:
        whole.write(self._path, msgspec.json.encode(self._state))

    # -- what comes -----------------------------------------------------------------------------

    def _checked(self, settings: Settings) -> Pushed:
        """Return what settings say; raise SettingsForged or ConfigError."""
        if self._public is None:
            raise SettingsForged("this gateway takes no settings; settings_key is not set")
        verify(self._edge, settings, self._public)
        return understand(settings.document)

    def offered(self, settings: Settings, now_s: float) -> tuple[str, str]:
        """Take settings of the cloud on trial, or refuse them; return outcome and detail."""
        try:
            pushed = self._checked(settings)
        except (SettingsForged, ConfigError) as error:
            return self._refused(settings.version, _said(error))
        if settings.version <= self.version:
            return self._refused(settings.version, f"version {self.version} is in use")
        if settings.version in self._state.refused:
            return self._refused(settings.version, "it was refused before; sign it anew")
        self._state.trial = _of(settings)
        try:
            self._write()
        except OSError as error:
            self._state.trial = None
            return self._refused(settings.version, f"cannot be kept ({type(error).__name__})")
        self._use(pushed)
        self._trial = Trial(self._snapshots[0][1], self._counts(), now_s)
        self.trouble = ""
        self._log.info("settings-on-trial", version=settings.version)
        return "applied", ""

    def _refused(self, version: int, why: str) -> tuple[str, str]:
        self.trouble = f"version {version}: {why}"
        self._log.warning("settings-refused", version=version, reason=why)
        return "refused", why

    def _use(self, pushed: Pushed) -> None:
        self.pushed = pushed
        self.use(pushed)

    def _give_up(self, version: int) -> None:
        """Forget the trial and remember that it was none."""
        self._trial = self._state.trial = None
        self._state.refused = [*self._state.refused, version][-REFUSED_KEPT:]
        try:
            self._write()
        except OSError as error:
            self._log.error("settings-not-written", error=type(error).__name__)

    # -- the trial ------------------------------------------------------------------------------

    def watch(self, now_s: float) -> Outcome | None:
        """Judge a trial that is under way; return what ingest is to be told, if anything."""
        counts = self._counts()
        if now_s - self._snapshots[1][0] >= BEFORE_S:
            self._snapshots = [self._snapshots[1], (now_s, counts)]
        trial, state = self._trial, self._state
        if trial is None or state.trial is None:
            return None
        verdict = trial.judge(counts, now_s)
        version = state.trial.version
        if verdict.trouble:
            kept = state.kept
            self._give_up(version)
            self._use(NOTHING if kept is None else self._checked(_back(kept)))
            self.trouble = f"version {version}: {verdict.trouble}"
            self._log.error("settings-rolled-back", version=version, reason=verdict.trouble)
            return version, "rolled-back", verdict.trouble
        if not verdict.over:
            return None
        before, state.kept, state.trial = state.kept, state.trial, None
        try:
            self._write()
        except OSError as error:  # tried again in a second; a start before then rolls back
            state.kept, state.trial = before, state.kept
            self._log.error("settings-not-written", error=type(error).__name__)
            return None
        self._trial = None
        self._log.info("settings-kept", version=version)
        return version, "kept", ""


def _said(error: Exception) -> str:
    """Return an error's words: ours name keys and numbers, never what a document says."""
    return str(error) if isinstance(error, SettingsForged | ConfigError) else type(error).__name__
