"""The exact truth of one sound scene: what, when, how many, how loud. Plain data, no numpy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Role = Literal["event", "background"]


@dataclass(frozen=True)
class Event:
    """One sound in a scene.

    Attributes:
        label: a label of :data:`gama.data.scenes.classes.CLASSES`.
        start: onset in seconds from the beginning of the clip.
        end: offset in seconds.
        count: how many single sounds it holds (three barks: 3); 1 for a texture; 0 where they were not counted, as in
            a recording whose single sounds run into each other.
        level_db: RMS over its active span, in dB relative to full scale.
        centroid_hz: spectral centroid over its active span: which of two sounds is higher.
        role: ``event`` in the foreground, ``background`` for a quiet texture under the whole scene.
        source: ``synthetic`` or the name of the recording it was cut from.
        onsets: where each of its single sounds begins, in seconds from the beginning of the clip; empty where they were
            not counted.
    """

    label: str
    start: float
    end: float
    count: int
    level_db: float
    centroid_hz: float
    role: Role = "event"
    source: str = "synthetic"
    onsets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A clip and its truth; ``events`` are ordered by onset, a background comes last.

    Attributes:
        duration: length of the clip in seconds.
        events: zero to three foreground events and at most one background.
        noise: whether unspecific noise (hiss, hum) lies under the scene; with no events it is all there is.
    """

    duration: float
    events: tuple[Event, ...]
    noise: bool = False

    @property
    def foreground(self) -> tuple[Event, ...]:
        """The foreground events, by onset."""
        return tuple(e for e in self.events if e.role == "event")

    @property
    def background(self) -> Event | None:
        """The background, if the scene has one of a known class."""
        return next((e for e in self.events if e.role == "background"), None)

    @property
    def silent(self) -> bool:
        """True when nothing at all is heard."""
        return not self.events and not self.noise

    def to_row(self) -> dict[str, Any]:
        """The truth as the manifest keeps it: ``events``, ``duration`` and ``noise``."""
        return {"events": [asdict(e) for e in self.events], "duration": self.duration, "noise": self.noise}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Scene:
        """The scene of a manifest row written by :meth:`to_row`."""
        return cls(
            duration=float(row["duration"]),
            events=tuple(Event(**{**e, "onsets": tuple(e.get("onsets", ()))}) for e in row["events"]),
            noise=bool(row.get("noise", False)),
        )
