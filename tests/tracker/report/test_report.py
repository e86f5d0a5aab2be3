"""The report of a track: what it finds wrong, what it draws, and that it is one page that needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from configs import load_preset
from flame.errors import AssetMissingError, InputError
from tests.tracker.clips import write_clip
from tests.tracker.export.tracks import small_track, toy_head_file
from tests.tracker.face_clips import wall, write_video
from tracker.frames import open_source
from tracker.report import write_report
from tracker.report.__main__ import main
from tracker.report.clip import carry_video
from tracker.report.curves import curves_of, runs, thinned
from tracker.report.facts import clock
from tracker.report.figures import as_script_json
from tracker.report.problems import KINDS, find_problems
from tracker.result import Track
from tracker.status import FrameStatus

CONFIG = load_preset("default")
SECTIONS = ("clip", "timeline", "summary", "problems", "identity", "actions-0", "pose-0", "jaw-0", "settings")


class Page(HTMLParser):
    """Read a page: its elements, what it loads, its text, its scripts by id; unclosed elements are an error."""

    VOID = {"meta", "link", "img", "input", "br"}

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self._script: str | None = None
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "script":
            self._script = dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None and self._open[-1:] != ["style"]:
            self.text += data
        elif self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements for key, value in attributes.items() if key == name and value]


def changed(track: Track, **arrays: np.ndarray) -> Track:
    return dataclasses.replace(track, **arrays)


def problems_of(track: Track) -> list[tuple[str, int | None, int, int]]:
    curves = [curves_of(track, person) for person in range(track.num_people)]
    return [(each.kind, each.person, each.first, each.last) for each in find_problems(track, curves, CONFIG)]


@pytest.fixture
def calm() -> Track:
    """Return 100 frames of two people to whom nothing happens."""
    return small_track(people=2, frames=100)


def test_a_calm_track_has_no_problems(calm):
    assert problems_of(calm) == []


def test_lost_and_doubtful_frames_are_found_as_they_are(calm):
    status, presence = calm.status.copy(), calm.presence.copy()
    status[0, :3], status[1, 40:50], status[1, 90:] = FrameStatus.NO_FACE, FrameStatus.LOST, FrameStatus.LOST
    status[0, 20:24] = FrameStatus.LOW_CONFIDENCE
    presence[0, 22] = 0.55
    track = changed(calm, status=status, presence=presence)
    assert problems_of(track) == [
        ("no face yet", 0, 0, 2),
        ("low confidence", 0, 20, 23),
        ("lost", 1, 40, 49),
        ("lost", 1, 90, 99),
    ]
    curves = [curves_of(track, person) for person in range(2)]
    doubtful = find_problems(track, curves, CONFIG)[1]
    assert doubtful.worst == 22 and "0.55" in doubtful.detail
    assert np.isnan(curves[1].residual_percent[40:50]).all() and np.isnan(curves[1].yaw[90:]).all()


def test_residuals_that_stand_out_are_found_and_near_ones_told_as_one(calm):
    residual = calm.residual_px.copy()
    residual[1, [30, 31, 33]], residual[1, 32], residual[1, 60] = 1.6, 0.7, 1.0
    assert problems_of(changed(calm, residual_px=residual)) == [("high residual", 1, 30, 33)]


def test_jumps_of_head_and_expression_are_found(calm):
    translation, expression = calm.translation.copy(), calm.expression.copy()
    translation[0, 50:] += (0.15, 0.0, 0.0)
    smile, blink = (calm.expression_names.index(name) for name in ("mouthSmileLeft", "eyeBlinkLeft"))
    expression[1, :, [smile, blink]] = 0.0
    expression[1, 70:, smile] = 0.95
    expression[1, 20:22, blink] = 1.0
    track = changed(calm, translation=translation, expression=expression)
    assert problems_of(track) == [("jump", 0, 49, 50), ("jump", 1, 69, 70)]
    details = [each.detail for each in find_problems(track, [curves_of(track, 0), curves_of(track, 1)], CONFIG)]
    assert details[0].startswith("moved at 3.") and details[1].startswith("mouthSmileLeft changed at")


def test_values_that_stay_at_a_bound_are_found_but_not_at_rest(calm):
    expression, jaw = calm.expression.copy(), calm.jaw.copy()
    pucker = calm.expression_names.index("mouthPucker")
    bound = float(calm.head_model.expression_bounds[pucker, 1])
    expression[0, :, pucker] = np.clip(np.linspace(-2, 4, 100), 0, bound)
    first = int(np.flatnonzero(expression[0, :, pucker] >= bound)[0])
    jaw[1, 10:12, 0] = 0.7
    track = changed(calm, expression=expression, jaw=jaw)
    assert [each for each in problems_of(track) if each[0] == "at a bound"] == [("at a bound", 0, first, 99)]


def test_missing_frames_are_told_once(calm):
    index = calm.frame_index.copy()
    index[40:] += 3
    assert problems_of(changed(calm, frame_index=index)) == [("missing frames", None, 39, 40)]


def test_convention_pose_curves(tmp_path):
    from scipy.spatial.transform import Rotation

    track = small_track(frames=4)
    to_the_right, up, clockwise = (0, 0.3, 0), (-0.2, 0, 0), (0, 0, -0.4)
    rotation = np.zeros((1, 4, 3))
    for frame, turn in enumerate((to_the_right, up, clockwise)):
        matrix = np.diag((1.0, -1.0, -1.0)) @ Rotation.from_rotvec(turn).as_matrix()
        rotation[0, frame] = Rotation.from_matrix(matrix).as_rotvec()
    neck = np.zeros((1, 4, 3), np.float32)
    rotation[0, 3], neck[0, 3] = Rotation.from_matrix(np.diag((1.0, -1.0, -1.0))).as_rotvec(), to_the_right
    curves = curves_of(changed(track, rotation=rotation, neck=neck), 0)
    angles = np.radians(np.stack((curves.yaw, curves.pitch, curves.roll), axis=1))
    expected = [(0.3, 0, 0), (0, 0.2, 0), (0, 0, 0.4), (0.3, 0, 0)]
    np.testing.assert_allclose(angles, expected, atol=1e-6)


def test_actions_are_in_the_order_of_their_motion(tmp_path):
    track = small_track(frames=30)
    expression = np.full_like(track.expression, 0.05)
    expression[0, :, 7] = np.linspace(0, 1, 30)
    curves = curves_of(changed(track, expression=expression), 0)
    assert curves.is_arkit and len(curves.actions) == 52
    assert next(iter(curves.actions)) == track.expression_names[7]
    other = curves_of(small_track(toy_head_file(tmp_path), frames=5), 0)
    assert not other.is_arkit and "expression 0" in other.actions


def test_thinned_curves_keep_peaks_gaps_and_ends():
    values = np.sin(np.linspace(0, 9, 10_000))
    values[5_003], values[7_000:7_010], values[2_345] = 5.0, np.nan, -4.0
    kept = thinned(values, 500)
    assert len(kept) < 520 and {0, 2_345, 5_003, 9_999} <= set(kept.tolist())
    assert np.isnan(values[kept]).any() and (np.diff(kept) > 0).all()
    assert thinned(values[:400], 500).tolist() == list(range(400))


def test_small_things():
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 1), (3, 3), (6, 6)] and runs(np.zeros(3, bool)) == []
    assert clock(0.5) == "0:00.50" and clock(75.25) == "1:15.25"
    assert "</script" not in as_script_json({"a": "</script><!--"})


def report(track: Track, folder: Path, **options: object) -> Page:
    track.save(folder)
    return Page(write_report(folder, **options))  # pyright: ignore[reportArgumentType]


def scripted(page: Page, name: str) -> dict:
    return json.loads(page.scripts[name])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Return 12 frames of a wall, the size of small tracks."""
    images = [np.ascontiguousarray(wall(192, 256) - 5 * index) for index in range(12)]
    return write_video(tmp_path / "clip.mp4", images)


def test_a_report_is_one_page_that_needs_nothing_else(clip, tmp_path):
    track = small_track(people=2, frames=12, lost=((1, 4), (1, 5)), seconds_per_frame=1 / 12, source=clip)
    page = report(track, tmp_path)
    assert not (tmp_path / "overlay.mp4").exists()
    for value in page.attributes("src") + page.attributes("href"):
        assert value.startswith("data:"), value
    policy = next(each["content"] for tag, each in page.elements if each.get("http-equiv"))
    assert policy and "default-src 'none'" in policy and "http" not in policy
    headings = {value.removeprefix("h-") for value in page.attributes("id") if value.startswith("h-")}
    assert headings == {*SECTIONS, "actions-1", "pose-1", "jaw-1"}
    # The overlay is drawn anew: it is in the page, with the clip's own times.
    video = tmp_path / "carried.mp4"
    video.write_bytes(base64.b64decode(page.scripts["clip-data"]))
    with open_source(video) as carried, open_source(clip) as original:
        pairs = list(zip(carried, original, strict=True))
    assert all(one.pts_seconds == other.pts_seconds for one, other in pairs)
    assert all(np.abs(one.image.astype(int) - other.image).mean() > 1 for one, other in pairs)
    data = scripted(page, "data")
    assert len(data["seconds"]) == 12 == len(data["numbers"]) and data["firstSeconds"] == 0
    assert data["status"] == ["0" * 12, "000022000000"] and data["residual"][1][4] is None
    assert page.text.count("lost") >= 2 and "0:00.33 to 0:00.42, 2 frames, person 1" in page.text
    assert [each["data-frame"] for _, each in page.elements if "data-frame" in each] == ["4"]


def test_plots_hold_the_track_s_numbers(clip, tmp_path):
    track = small_track(frames=12, seconds_per_frame=1 / 12, source=clip)
    page = report(track, tmp_path)
    keys = [each for _, each in page.elements if each.get("data-plot") == "actions-0"]
    assert len(keys) == 52 and sum(each["aria-pressed"] == "true" for each in keys) == 6
    figure = scripted(page, "figure-pose-0")
    yaw = next(trace for trace in figure["data"] if trace["name"] == "yaw")
    stored = np.frombuffer(base64.b64decode(yaw["y"]["bdata"]), np.dtype(yaw["y"]["dtype"]))
    np.testing.assert_allclose(stored, curves_of(track, 0).yaw, rtol=1e-5)
    bands = scripted(page, "figure-timeline")["data"][0]
    assert bands["name"] == "ok" and bands["y"] == ["status"]


def test_a_folder_s_own_overlay_is_carried_and_large_ones_are_made_smaller(clip, tmp_path):
    track = small_track(frames=12, seconds_per_frame=1 / 12, source=clip)
    shutil.copy(clip, tmp_path / "overlay.mp4")
    page = report(track, tmp_path)
    assert base64.b64decode(page.scripts["clip-data"]) == clip.read_bytes()
    late = write_clip(
        tmp_path / "late.mp4", [0.5 + 0.1 * index for index in range(10)], height=301, width=401, pixel_format="yuv444p"
    )
    carried = carry_video(late, max_bytes=30_000)
    assert carried is not None and "made smaller" in carried.note
    content = base64.b64decode(carried.base64)
    with av.open(io.BytesIO(content)) as source:
        stream = source.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p" and stream.codec_context.width % 2 == 0
        times = [float(frame.pts * stream.time_base) for frame in source.decode(stream)]
    assert len(content) < 30_000
    np.testing.assert_allclose(times, [0.5 + 0.1 * index for index in range(10)], atol=1e-3)
    assert carry_video(tmp_path / "track.npz") is None


def test_nothing_from_files_becomes_markup(tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=3)
    bad = '<img src=x onerror="alert(1)">&\' </script><script>alert(2)</script>'
    track = dataclasses.replace(
        track,
        info={
            "source": {"path": f"{bad}.mp4", "problems": [bad], "frame_rate": "30"},
            "settings": {"prior": bad, "head": bad, "config": {bad: bad}},
            "program_version": bad,
        },
        expression_names=(bad, *(f"{bad}{index}" for index in range(1, track.expression.shape[-1]))),
    )
    page = report(track, tmp_path)
    tags = [tag for tag, _ in page.elements]
    assert not any(each.get("onerror") or each.get("src") == "x" for _, each in page.elements)
    assert tags.count("script") == 4 + 1 + 2 and "alert(2)" in page.text
    assert "at a bound" not in page.text and page.text.count("Pictures of the clip are left out") == 1


def test_a_moved_clip_is_said_and_can_be_given(clip, tmp_path):
    track = small_track(frames=12, seconds_per_frame=1 / 12, lost=((0, 3),), source=tmp_path / "gone" / "clip.mp4")
    page = report(track, tmp_path)
    assert "Pictures of the clip are left out" in page.text and "clip-data" not in page.scripts
    assert not any(
        "problem" in value and "plain" not in value for value in page.attributes("class") if "problem " in value
    )
    page = report(track, tmp_path, source=clip)
    assert "left out" not in page.text and "clip-data" in page.scripts
    with pytest.raises(AssetMissingError):
        write_report(tmp_path, source=tmp_path / "neither.mp4")


def test_one_image_and_nobody(tmp_path):
    Image.fromarray(wall(192, 256)).save(tmp_path / "wall.png")
    track = small_track(frames=1, lost=((0, 0),), source=tmp_path / "wall.png")
    page = report(track, tmp_path)
    assert "Nobody was seen" in page.text and "clip-data" not in page.scripts
    pictures = [each for tag, each in page.elements if tag == "img"]
    assert len(pictures) == 2 and pictures[0]["alt"] and "heads drawn over it" in pictures[0]["alt"]
    track = small_track(frames=1, source=tmp_path / "wall.png")
    page = report(track, tmp_path)
    assert "Nothing was found" in page.text and page.text.count("profile") == 1
    # A single moment is told in numbers.
    assert not any(name.startswith("figure-") for name in page.scripts)
    assert f"{track.arkit()['jawOpen'][0]:.2f}" in page.text and page.text.count("°") == 9


def test_a_long_track_stays_a_page(tmp_path):
    page_sizes = {}
    for frames in (300, 6000):
        page = report(small_track(frames=frames), tmp_path)
        figures = sum(len(text) for name, text in page.scripts.items() if name.startswith("figure-"))
        page_sizes[frames] = figures, len(page.scripts["data"])
    assert page_sizes[6000][0] < 1_500_000 and page_sizes[6000][1] < 60 * 6000


def test_the_command_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert re.search(r"error: no track at .*track\.npz", capsys.readouterr().err)
    small_track(frames=2).save(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out and (tmp_path / "report.html").is_file()
    (tmp_path / "track.npz").write_bytes(b"no track")
    with pytest.raises(InputError):
        write_report(tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path), "--source", "clip.mp4"])


def test_a_report_may_go_elsewhere(tmp_path, capsys):
    small_track(frames=2).save(tmp_path)
    assert main([str(tmp_path), "-o", str(tmp_path / "there")]) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "there" / "report.html"))
    assert (tmp_path / "there" / "report.html").is_file() and not (tmp_path / "report.html").exists()
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path), "-o", "there"])


def test_every_kind_of_problem_has_a_meaning(calm):
    assert {kind for kind, *_ in problems_of(calm)} <= set(KINDS) and all(KINDS.values())


def test_tracking_writes_a_report_where_it_is_asked_for(cli, face_clip, tmp_path):
    outcome = cli(face_clip, "-o", "out", "--report", "--max-frames", 2)
    assert outcome.status == 0 and "report.html" in outcome.out
    page = Page(tmp_path / "out" / "report.html")
    assert base64.b64decode(page.scripts["clip-data"]) == (tmp_path / "out" / "overlay.mp4").read_bytes()
    assert "mediapipe" in page.text and "1 of them changed" in page.text
    # A report of another track is never left beside the new one.
    assert cli(face_clip, "-o", "out", "--max-frames", 2).status == 0
    assert not (tmp_path / "out" / "report.html").exists()
