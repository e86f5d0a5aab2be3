"""The page in a headless browser: what it shows is where the track says, and its controls and keys work."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest

from flame.camera import project
from tests.tracker.clips import even_seconds, write_clip
from tests.tracker.export.tracks import SIZE, small_track
from tests.tracker.viewer.browser import CHROMIUM, Page, open_page
from tracker.view import Viewer, view

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page with")
LOST_FRAME = 5
WINDOW = 1060, 620
"""Small: without a GPU every pixel costs time."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Iterator[tuple[Viewer, Page]]:
    """A page with two people, the second one lost in one frame."""
    folder = tmp_path_factory.mktemp("page")
    clip = folder / "clip.mp4"
    write_clip(clip, even_seconds(8, 25), height=SIZE[0], width=SIZE[1])
    track = small_track(people=2, frames=8, lost=((1, LOST_FRAME),), source=clip)
    (folder / "clip_track").mkdir()
    track.save(folder / "clip_track")
    with view(folder / "clip_track", port=0, browser=False) as viewer, open_page(viewer.url, folder, WINDOW) as page:
        page.wait_for("document.querySelector('canvas') !== null && document.body.innerText.includes('Wireframe')", 60)
        # Without a GPU the page says so, in front of the scene.
        page.wait_for("document.body.innerText.includes('Software WebGL')", 10, is_needed=False)
        page.evaluate("document.querySelectorAll('.mantine-Notification-closeButton').forEach(each => each.click())")
        page.wait_for("!document.body.innerText.includes('Software WebGL')")
        yield viewer, page


@pytest.fixture
def fresh(shown) -> tuple[Viewer, Page]:
    """The page as it was when it was opened, at frame 0."""
    viewer, page = shown
    player = viewer.player
    player.reset_edits()
    player.fix_to(None)
    player.seek(0)
    for person in range(2):
        player.set_visible(person, True)
    player.set_look(surface="clay", wireframe=False, opacity=1.0, picture=False, frustum=False)
    for client in viewer.server.get_clients().values():
        player.home.apply(client.camera)
    return viewer, page


def settled(shown: tuple[Viewer, Page]) -> np.ndarray:
    """Return the canvas' pixels when all that was asked for until now is on it."""
    viewer, page = shown
    assert viewer.player.flush(30)
    # What is sent after it arrives after it.
    mark = f"mark {time.monotonic_ns()}"
    viewer.server.gui.set_panel_label(mark)
    page.wait_for(f"document.body.innerText.includes('{mark}')")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
    left, top, width, height = canvas_box(page)
    return page.screenshot()[top : top + height, left : left + width]


def settled_with(shown: tuple[Viewer, Page], condition: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Return the canvas' pixels when a condition holds: for what the page has to read first."""
    end = time.monotonic() + 30
    while not condition(pixels := settled(shown)):
        assert time.monotonic() < end
    return pixels


def canvas_box(page: Page) -> tuple[int, int, int, int]:
    """Return where the scene is on the page: left, top, width, height."""
    script = "(() => { const r = document.querySelector('canvas').getBoundingClientRect();"
    values = page.evaluate(script + "return [r.left, r.top, r.width, r.height]; })()")
    return tuple(round(value) for value in values)


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs(first.astype(int) - second).max(axis=2) > 12


def test_the_page_needs_nothing_from_the_network(fresh):
    _, page = fresh
    settled(fresh)
    hosts = {urlsplit(url).hostname for url in page.requested if url.startswith("http")}
    assert hosts <= {"localhost", "127.0.0.1"}
    assert page.errors == []


def test_the_controls_are_there(fresh):
    _, page = fresh
    text = page.text()
    for label in ("Clip: clip_track", "Frame", "Speed", "Loop", "Look through the camera", "Surface", "Wireframe"):
        assert label in text, label
    for label in ("Show person 1", "Expression and joints", "left eye", "Brows", "Mouth", "Jaw", "Follow the track"):
        assert label in text, label
    assert "person 0" in text and "residual 0.70 px" in text


def test_heads_are_on_show_and_can_be_hidden(fresh):
    viewer, page = fresh
    both = settled(fresh)
    viewer.player.set_visible(0, False)
    one = settled(fresh)
    viewer.player.set_visible(1, False)
    none = settled(fresh)
    assert changed(both, one).sum() > 1500
    assert changed(one, none).sum() > 1500
    # Neutral and nearly even without heads.
    assert none.std(axis=(0, 1)).max() < 15


def test_lost_heads_are_hidden_and_said_to_be_lost(fresh):
    viewer, page = fresh
    before = settled(fresh)
    assert "lost" not in page.text().replace("low confidence lost", "").split("Frame")[0]
    viewer.player.seek(LOST_FRAME)
    page.wait_for("document.body.innerText.includes('the head is hidden in this frame')")
    viewer.player.set_visible(0, False)
    assert settled(fresh).std(axis=(0, 1)).max() < 15 < before.std(axis=(0, 1)).max()


def test_through_the_camera_heads_lie_where_they_were_tracked(fresh):
    viewer, page = fresh
    viewer.look_through_camera()
    with_heads = settled(fresh)
    for person in range(2):
        viewer.player.set_visible(person, False)
    is_head = changed(with_heads, settled(fresh))
    height, width = is_head.shape
    track = viewer.player.clip.track
    # The picture fills the window as far as it can, in its middle.
    scale = min(width / track.intrinsics.width, height / track.intrinsics.height)
    pixels = [project(track.vertices(0, person), track.intrinsics) for person in range(2)]
    placed = (np.concatenate(pixels) - (track.intrinsics.cx, track.intrinsics.cy)) * scale + (width / 2, height / 2)
    rows, columns = np.nonzero(is_head)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    expected = np.clip((*placed.min(axis=0), *placed.max(axis=0)), 0, (width, height, width, height))
    np.testing.assert_allclose(found, expected, atol=2.5)
    inside = placed[(placed >= 2).all(axis=1) & (placed < (width - 2, height - 2)).all(axis=1)].astype(int)
    assert is_head[inside[:, 1], inside[:, 0]].mean() > 0.97


def test_the_picture_lies_behind_the_heads(fresh):
    viewer, page = fresh
    viewer.look_through_camera()
    empty = settled(fresh)
    viewer.player.set_look(picture=True)
    height, width = empty.shape[:2]
    shown = settled_with(fresh, lambda now: bool(changed(empty, now).any()))
    scale = min(width / SIZE[1], height / SIZE[0])
    rows, columns = np.nonzero(changed(empty, shown))
    assert columns.max() - columns.min() == pytest.approx(scale * SIZE[1], abs=4)
    assert rows.max() - rows.min() == pytest.approx(scale * SIZE[0], abs=4)
    # The test picture is dark red on the left and bright red on the right, as it was written.
    row = height // 2 + int(0.45 * scale * SIZE[0])
    left, right = (shown[row, width // 2 + int(side * 0.48 * scale * SIZE[1])].astype(int) for side in (-1, 1))
    assert right[0] - left[0] > 120


def test_looks_change_what_is_seen(fresh):
    viewer, page = fresh
    clay = settled(fresh)
    viewer.player.set_look(surface="normals")
    normals = settled_with(fresh, lambda now: bool(changed(clay, now).any()))
    is_head = changed(clay, normals)
    assert is_head.sum() > 2500
    # Faces look at the camera: blue; they have left and right sides: red varies.
    assert normals[is_head][:, 2].mean() > clay[is_head][:, 2].mean() + 15
    assert normals[is_head][:, 0].std() > 30
    viewer.player.set_look(surface="clay", wireframe=True)
    assert changed(clay, settled(fresh)).sum() > 1500
    assert page.errors == []


def test_scrubbing_and_sliders_move_the_head(fresh):
    viewer, page = fresh
    first = settled(fresh)
    viewer.player.seek(7)
    assert changed(first, settled(fresh)).sum() > 150
    viewer.player.seek(0)
    assert not changed(first, settled(fresh)).any()
    viewer.player.edit("jaw.x", 30.0)
    assert changed(first, settled(fresh)).sum() > 150
    assert "jaw.x" in page.text()
    viewer.player.reset_edits()
    assert not changed(first, settled(fresh)).any()


def test_keys_step_and_play(fresh):
    viewer, page = fresh
    settled(fresh)
    page.key("ArrowRight", "ArrowRight", 39)
    wait_until(lambda: viewer.player.frame == 1)
    page.key("End", "End", 35)
    wait_until(lambda: viewer.player.frame == 7)
    page.key("w", "KeyW", 87)
    wait_until(lambda: viewer.player.look.wireframe)
    drawn = viewer.player.num_drawn
    page.key(" ", "Space", 32)
    wait_until(lambda: viewer.player.is_playing)
    wait_until(lambda: viewer.player.num_drawn > drawn + 10)
    page.wait_for("document.body.innerText.includes('Pause')")
    page.key(" ", "Space", 32)
    wait_until(lambda: not viewer.player.is_playing)


def test_the_picture_beside_the_head_follows(fresh):
    viewer, page = fresh
    script = (
        "(() => { const i = document.querySelector('img[src^=\"blob\"]');"
        "return i && i.complete && i.naturalWidth > 2 ? i.src : ''; })()"
    )
    page.wait_for(f"{script} !== ''")
    before = page.evaluate(script)
    viewer.player.seek(3)
    page.wait_for(f"{script} !== '' && {script} !== '{before}'")


def test_another_page_shows_the_same(fresh, tmp_path):
    viewer, page = fresh
    viewer.player.seek(3)
    viewer.player.set_look(wireframe=True)
    with open_page(viewer.url, tmp_path, WINDOW) as other:
        for each in (page, other):
            each.wait_for("document.body.innerText.includes('frame 3 of the clip')", 60)
        # The page may hear keys a moment after it shows its texts.
        wait_until(lambda: other.key("End", "End", 35) or viewer.player.frame == 7)
        for each in (page, other):
            each.wait_for("document.body.innerText.includes('frame 7 of the clip')")


def test_another_clip_takes_the_page_over(tmp_path):
    folders = []
    for people in (1, 2):
        folders.append(tmp_path / f"clip_{people}_track")
        folders[-1].mkdir()
        dataclasses.replace(small_track(people=people, frames=people), info={}).save(folders[-1])
    with view(folders, port=0, browser=False) as viewer, open_page(viewer.url, tmp_path, WINDOW) as page:
        page.wait_for("document.body.innerText.includes('Clip: clip_1_track')", 60)
        # A single picture, and nobody knows of what clip.
        assert "say where it is with --source" in page.text()
        viewer.open(1)
        page.wait_for("document.body.innerText.includes('Clip: clip_2_track')")
        page.wait_for("document.body.innerText.includes('Show person 1')")
        assert "Clip: clip_1_track" not in page.text()
        assert page.errors == []


def wait_until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
