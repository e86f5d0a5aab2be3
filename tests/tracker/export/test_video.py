"""The overlay video written anew from a track: the same pictures, times and sound as while tracking."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flame.errors import AssetMissingError, InputError
from tests.tracker.face_clips import portrait, read_video, write_video
from tracker import Track, api
from tracker.clip import Toolkit
from tracker.export.job import ExportJob, ExportOptions
from tracker.export.video import write
from tracker.frames import open_source
from tracker.recorded_options import recorded_config, recorded_options


@pytest.fixture(autouse=True)
def loaded_toolkit(monkeypatch: pytest.MonkeyPatch, toolkit: Toolkit) -> None:
    """Load head and prior once."""
    monkeypatch.setattr("tracker.clip.load_toolkit", lambda *_others: toolkit)


def export(track: Track, folder: Path, **options: object) -> Path:
    """Write the video of a track and return its path."""
    folder.mkdir()
    return write(ExportJob(track, folder, ExportOptions(**options))).paths[0]  # pyright: ignore[reportArgumentType]


def seconds(path: Path) -> list[float]:
    with open_source(path) as source:
        return [frame.pts_seconds for frame in source]


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as source:
        return [bytes(packet) for packet in source.demux(source.streams.audio[0]) if packet.size]


def assert_same_videos(first: Path, second: Path) -> None:
    assert seconds(first) == seconds(second)
    for one, other in zip(read_video(first), read_video(second), strict=True):
        assert one.shape == other.shape
        # What is stored of a pose is rounded; a pixel here and there may be, too, and codecs spread that.
        assert np.abs(one.astype(int) - other).mean() < 0.05


@pytest.mark.parametrize("options", [{}, {"panels": True}, {"panels": True, "layout": "grid"}], ids=str)
def test_pictures_times_and_sound_are_those_of_the_run(face_clip, toolkit, tmp_path, options):
    track = api.track(face_clip, tmp_path / "run", toolkit=toolkit, max_frames=6, start_seconds=0.2, **options)
    path = export(Track.load(tmp_path / "run"), tmp_path / "video", **options)
    assert len(read_video(path)) == len(track) == 6
    assert_same_videos(path, tmp_path / "run" / "overlay.mp4")
    assert sound_packets(path) == sound_packets(tmp_path / "run" / "overlay.mp4")


def test_several_people_who_come_and_go(pair_clip, toolkit, tmp_path):
    api.track(pair_clip, tmp_path / "run", toolkit=toolkit, faces=2, panels=True, layout="grid")
    path = export(Track.load(tmp_path / "run"), tmp_path / "video", panels=True, layout="grid")
    assert_same_videos(path, tmp_path / "run" / "overlay.mp4")


def test_pictures_without_a_head_stay(gap_clip, toolkit, tmp_path):
    track = api.track(gap_clip, toolkit=toolkit)
    (tmp_path / "video").mkdir()
    written = write(ExportJob(track, tmp_path / "video"))
    lost = np.flatnonzero(~track.is_tracked[0])
    assert len(lost) and written.notes == (f"{len(lost)} pictures without a head",)
    before, after = read_video(gap_clip), read_video(written.paths[0])
    assert len(before) == len(after) == len(track)
    for position in range(len(track)):
        change = np.abs(after[position].astype(int) - before[position])[40:].mean()
        assert (change < 3) == (position in lost), position
    # The word that says why.
    assert np.abs(after[lost[0]].astype(int) - before[lost[0]])[8:30, 8:40].mean() > 20


def test_odd_sizes_stay_and_panels_become_even(toolkit, tmp_path):
    images = [np.ascontiguousarray(portrait(index)[:231, :173]) for index in range(3)]
    clip = write_video(tmp_path / "odd.mp4", images)
    track = api.track(clip, toolkit=toolkit)
    assert read_video(export(track, tmp_path / "plain"))[0].shape == (231, 173, 3)
    row, grid = (
        read_video(export(track, tmp_path / layout, panels=True, layout=layout))[0] for layout in ("row", "grid")
    )
    assert row.shape == (232, 866, 3) and grid.shape == (462, 520, 3)
    for panel in (row[30:231, :173], grid[30:231, :173]):
        assert np.abs(panel.astype(int) - images[0][30:231]).mean() < 6


def test_an_image_gives_an_image(toolkit, tmp_path):
    Image.fromarray(portrait()).save(tmp_path / "face.png")
    track = api.track(tmp_path / "face.png", tmp_path / "run", toolkit=toolkit)
    path = export(track, tmp_path / "video")
    assert path.name == "overlay.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(tmp_path / "run/overlay.png")))


def test_a_clip_that_has_moved(face_clip, face_track, tmp_path):
    track = dataclasses.replace(
        face_track, info=face_track.info | {"source": face_track.info["source"] | {"path": "x", "absolute_path": "y"}}
    )
    with pytest.raises(AssetMissingError, match="--source"):
        export(track, tmp_path / "nowhere")
    shutil.copy(face_clip, tmp_path / "moved.mp4")
    path = export(track, tmp_path / "video", source=str(tmp_path / "moved.mp4"))
    assert seconds(path) == seconds(face_clip)


def test_a_track_tells_how_it_was_made(face_track):
    assert recorded_config(face_track) == api.Options().settings
    options = recorded_options(face_track)
    assert options == api.Options(config=api.Options().settings)
    strange = {
        "device": "cuda",
        "prior": "commons",
        "principal_point_px": [3.0, 4.0],
        "hue": 7,
        "config": {"status": {"hue": 7}},
    }
    told = recorded_options(dataclasses.replace(face_track, info={"settings": strange}))
    assert (told.prior, told.principal_point_px, told.device) == ("commons", (3.0, 4.0), "auto")
    assert recorded_config(dataclasses.replace(face_track, info={})) == api.Options().settings
    with pytest.raises(InputError, match="--layout"):
        api.Options(panels=True, layout="column")  # pyright: ignore[reportArgumentType]


def test_the_command_line_lays_panels_out(cli, face_clip, tmp_path):
    assert cli(face_clip, "-o", "out", "--panels", "--layout", "grid", "--max-frames", 1).status == 0
    assert read_video(tmp_path / "out" / "overlay.mp4")[0].shape == (512, 768, 3)
