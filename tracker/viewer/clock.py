"""Which frame is on show at which moment: playing at the clip's own times, leaving out frames rather than slowing."""

from __future__ import annotations

import numpy as np


class PlaybackClock:
    """Map the wall clock to frames of a clip; every method takes the present moment ``now``, in seconds.

    The clip's times may be uneven; each frame is on show until the next one begins, the last one as long as frames are
    in the middle (median).
    """

    def __init__(self, pts_seconds: np.ndarray, *, speed: float = 1.0, loop: bool = True) -> None:
        """Stand still at the first frame of a clip with these times (T,), increasing."""
        self._times = np.asarray(pts_seconds, np.float64) - float(pts_seconds[0])
        gaps = np.diff(self._times)
        self._duration = float(self._times[-1]) + (float(np.median(gaps)) if len(gaps) else 1.0)
        self._speed = float(speed)
        self._is_playing = False
        self._anchor_now = 0.0
        self._anchor_seconds = 0.0
        self.loop = loop

    @property
    def is_playing(self) -> bool:
        """Tell whether time passes."""
        return self._is_playing

    @property
    def num_frames(self) -> int:
        """Return T."""
        return len(self._times)

    def frame_at(self, now: float) -> int:
        """Return the position of the frame on show; stops at the last one where the clip is not looped."""
        seconds = self._seconds_at(now)
        if seconds >= self._duration and self._is_playing:
            if not self.loop:
                self._is_playing = False
                self._anchor_seconds = float(self._times[-1])
                return self.num_frames - 1
            seconds %= self._duration
            self._anchor_now, self._anchor_seconds = now, seconds
        frame = int(np.searchsorted(self._times, seconds + 1e-9, side="right")) - 1
        return min(max(frame, 0), self.num_frames - 1)

    def play(self, now: float) -> None:
        """Let time pass; from the beginning where the clip is at its end."""
        frame = self.frame_at(now)
        if not self._is_playing:
            self._anchor_seconds = 0.0 if frame == self.num_frames - 1 else float(self._times[frame])
            self._anchor_now = now
            self._is_playing = True

    def pause(self, now: float) -> None:
        """Stand still at the frame on show."""
        self.seek(self.frame_at(now), now)
        self._is_playing = False

    def seek(self, frame: int, now: float) -> None:
        """Go to the beginning of a frame; positions outside the clip mean its ends. Goes on playing if it did."""
        self._anchor_seconds = float(self._times[min(max(int(frame), 0), self.num_frames - 1)])
        self._anchor_now = now

    def set_speed(self, speed: float, now: float) -> None:
        """Play at ``speed`` clip seconds a second from now on."""
        self._anchor_seconds, self._anchor_now = self._seconds_at(now), now
        self._speed = float(speed)

    def _seconds_at(self, now: float) -> float:
        """Return the time within the clip, seconds; beyond its end where a loop is due."""
        passed = (now - self._anchor_now) * self._speed if self._is_playing else 0.0
        return self._anchor_seconds + max(passed, 0.0)
