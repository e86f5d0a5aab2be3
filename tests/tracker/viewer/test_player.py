"""The player hides a picture that is not the one of the frame on show."""

from __future__ import annotations

import time

from tests.tracker.clips import even_seconds, write_clip
from tests.tracker.export.tracks import SIZE, small_track
from tracker.view import view


def test_frames_that_cannot_be_decoded_show_no_other_frames_picture(tmp_path):
    source = tmp_path / "clip.mp4"
    write_clip(source, even_seconds(4, 25), height=SIZE[0], width=SIZE[1])
    with view(small_track(frames=8, source=source), port=0, browser=False) as viewer:
        for frame, is_there in ((3, True), (6, False), (1, True)):
            viewer.player.seek(frame)
            wait_until(lambda is_there=is_there: viewer.player._stage._picture.visible == is_there)
            wait_until(lambda is_there=is_there: viewer.player.panel._picture.visible == is_there)
            said = viewer.player.panel._status.content
            assert ("this frame of the clip cannot be decoded" in said) != is_there


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
