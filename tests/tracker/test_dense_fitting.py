"""Tracking with dense maps: cutting out, the presets end to end, the same answer as the landmarks where they agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from configs import load_preset, override
from flame.camera import Intrinsics
from flame.errors import InputError
from flame.rotation_kernels import rotation_matrix, small_turn_vector
from priors.evidence import DenseMaps
from tracker.api import Options, track
from tracker.clip import load_toolkit
from tracker.dense_fitting import Crop
from tracker.frames import open_source
from tracker.state import View

FRAMES = 3
QUADRATIC = "smoothing.method=quadratic"


def tracked(face_clip, preset: str, *settings: str):
    config = override(load_preset(preset), settings)
    return track(face_clip, None, config=config, max_frames=FRAMES, overlay=False)


def test_a_picture_of_a_face_sees_through_the_image_s_camera():
    rng = np.random.default_rng(0)
    points_cam = rng.normal(size=(20, 3)) * 0.05 + (0.1, 0.0, 0.7)
    view = View.of(Intrinsics(900.0, 880.0, 320.0, 240.0, 640, 480))
    seen = view.project(points_cam)
    crop = Crop.around(seen, 256)
    np.testing.assert_allclose(View.of(crop.intrinsics(view)).project(points_cam), crop.points(seen), atol=1e-9)
    inside = crop.points(seen)
    assert inside.min() > 0 and inside.max() < 256


def test_the_picture_s_evidence_is_the_image_s(face_clip):
    toolkit = load_toolkit("commons", "mediapipe", load_preset("dense"))
    with open_source(face_clip) as source:
        frame = next(iter(source))
    evidence = toolkit.prior.search(frame.image)[0]
    dense = toolkit.model.dense
    assert dense is not None
    height, width = frame.image.shape[:2]
    problem = dense.problem(evidence, View.of(Intrinsics.from_fov(45.0, width, height)))
    maps = problem.maps
    assert maps.mask.shape == (256, 256) and 0.2 < maps.mask.mean() < 0.9
    assert len(problem.lookups.vertices) > 500
    assert problem.irises is not None and problem.lids is not None
    rows, columns = np.nonzero(maps.mask)
    for place in (problem.irises.points_px, problem.lookups.points_px):
        # Refined places may lie up to a pixel beyond the outermost pixel that was seen.
        assert (place.min(axis=0) >= (columns.min() - 1, rows.min() - 1)).all()
        assert (place.max(axis=0) <= (columns.max() + 2, rows.max() + 2)).all()


def test_dense_maps_find_the_same_head_as_landmarks(face_clip):
    dense, landmarks = tracked(face_clip, "dense"), tracked(face_clip, "raw")
    assert dense.is_tracked.all()
    percent = 100 * dense.residual_px / dense.interocular_px
    assert np.median(percent) < 2.5
    pairs = zip(dense.rotation[0], landmarks.rotation[0], strict=True)
    turns = [small_turn_vector(rotation_matrix(one) @ rotation_matrix(other).T) for one, other in pairs]
    assert np.degrees(np.linalg.norm(turns, axis=1).max()) < 6
    direction, expected = (found.translation[0] / found.translation[0][:, 2:] for found in (dense, landmarks))
    assert np.abs(direction - expected).max() < 0.03


def test_maps_may_serve_for_identity_alone(face_clip):
    """Frames are then fitted to landmarks, as the smoother over a window needs them."""
    both = tracked(face_clip, "default", "solver.evidence=dense-identity")
    landmarks, dense = tracked(face_clip, "default"), tracked(face_clip, "default", "solver.evidence=dense", QUADRATIC)
    np.testing.assert_allclose(both.identity, dense.identity, atol=1e-6)
    assert np.abs(both.identity - landmarks.identity).max() > 0.05
    assert np.abs(both.expression - dense.expression).max() > 1e-3


def test_maps_and_landmarks_may_be_weighed_together(face_clip):
    alone = tracked(face_clip, "dense")
    both = tracked(face_clip, "dense", "energy.correspondences=300")
    assert np.median(both.residual_px) < 0.9 * np.median(alone.residual_px)


def test_faces_of_which_maps_show_nothing_are_fitted_to_landmarks(face_clip, monkeypatch):
    """A network may see no skin where landmarks were found; a long clip does not end there."""
    config = override(load_preset("default"), ["solver.evidence=dense", QUADRATIC])
    toolkit = load_toolkit("commons", "mediapipe", config)

    def nothing(_evidence, height, width) -> DenseMaps:
        blank = np.full((height, width, 3), np.nan)
        return DenseMaps(blank[..., :2], blank, np.zeros((height, width), dtype=bool))

    monkeypatch.setattr(toolkit.prior, "dense", nothing)
    blind = track(face_clip, None, toolkit=toolkit, config=config, max_frames=FRAMES, overlay=False)
    landmarks = tracked(face_clip, "default", QUADRATIC)
    assert blind.is_tracked.all()
    np.testing.assert_allclose(blind.identity, landmarks.identity, atol=1e-6)
    np.testing.assert_allclose(blind.expression, landmarks.expression, atol=1e-3)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_the_reference_presets_track(face_clip, preset):
    found = tracked(face_clip, preset, "adam.steps=15", "solver.dense_px=96", "scout.keyframes=1")
    assert found.is_tracked.all()
    assert np.isfinite(found.expression).all()
    assert np.median(100 * found.residual_px / found.interocular_px) < 8


def test_adam_is_for_dense_evidence():
    config = override(load_preset("default"), ["solver.method=adam"])
    with pytest.raises(InputError, match=r"is .adam. and .solver.evidence. is .landmarks.; Adam .*paper"):
        load_toolkit("commons", "mediapipe", config)


def test_dense_fits_are_smoothed_each_by_itself():
    config = override(load_preset("dense"), ["smoothing.method=window"])
    with pytest.raises(InputError, match=r"is .window. and .solver.evidence. is .dense.; .*smoothing.method=quadratic"):
        load_toolkit("commons", "mediapipe", config)


def test_the_paper_s_solver_and_ours_start_from_the_same_energy():
    options = Options(config=load_preset("paper"))
    assert options.settings.adam.steps == 500
    assert options.settings.adam.identity_rate == 1e-3 and options.settings.adam.expression_rate == 3e-3
    energy = options.settings.energy
    assert (energy.uv, energy.normal, energy.identity, energy.expression) == (2000, 200, 0.15, 0.01)
    assert replace(energy, uv=0, normal=0, identity=0, expression=0) == replace(
        load_preset("default").energy, uv=0, normal=0, identity=0, expression=0
    )
