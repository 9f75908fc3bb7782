"""Host profiles that come with this program, by name; or one's own, by path."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UsageError
from pipeline.forecast.host_profile import HostProfile, read_profile
from tools.forecast.published.calibration import calibrated

OURS = Path(__file__).parent


def names() -> list[str]:
    """Those of ours."""
    return sorted(path.stem for path in OURS.glob("*.toml"))


def raw_profile(text: str) -> HostProfile:
    """As it is written, by name or path. Raises UsageError."""
    path = OURS / f"{text}.toml" if text in names() else Path(text)
    if not path.is_file():
        raise UsageError(f"host profile {text}: no such file; ours are {', '.join(names())}")
    return read_profile(path)


def profile_named(text: str) -> HostProfile:
    """With speeds, computed from its rows where it names such. Raises UsageError."""
    profile = raw_profile(text)
    return profile if profile.calibration is None else calibrated(profile).profile
