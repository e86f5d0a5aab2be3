"""Maps of a crop, brought into the image and to the camera's axes, against maps rendered there."""

import numpy as np
import pytest

from flame.camera import Intrinsics
from flame.loading import load_head
from flame.model import HeadModel
from priors.dense_rendering import render_dense_maps
from priors.evidence import DenseMaps
from priors.face_crop import FaceCrop, ray_from_cam
from priors.placed_maps import place_maps, with_camera_normals

CAMERA = Intrinsics(700.0, 700.0, 160.0, 120.0, 320, 240)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("commons")


@pytest.fixture(scope="module")
def verts_cam(head: HeadModel) -> np.ndarray:
    return head.template.numpy().astype(np.float64) * (1, -1, -1) + (0.12, -0.02, 1.1)


@pytest.fixture(scope="module")
def drawn(head: HeadModel, verts_cam: np.ndarray) -> tuple[DenseMaps, FaceCrop]:
    """Return maps in ray space of a turned crop, as a network would give them."""
    crop = FaceCrop.of(np.array((235.0, 110.0)), 190.0, 0.35, 256)
    camera = crop.intrinsics(CAMERA)
    maps = render_dense_maps(head, verts_cam @ crop.crop_cam_from_cam().T, camera)
    normals = (maps.normals @ ray_from_cam(camera).T).astype(np.float32)
    return DenseMaps(maps.uv.astype(np.float32), normals, maps.mask, "ray", (128.0, 128.0)), crop


def test_placed_maps_equal_those_rendered_in_the_image(
    head: HeadModel, verts_cam: np.ndarray, drawn: tuple[DenseMaps, FaceCrop]
) -> None:
    maps, crop = drawn
    placed = with_camera_normals(place_maps(maps, crop.image_from_crop, 240, 320), CAMERA)
    true = render_dense_maps(head, verts_cam, CAMERA)
    assert placed.normal_space == "camera" and placed.axis_px is None
    # Outlines may differ by the share of a pixel.
    assert (placed.mask != true.mask).sum() < 0.03 * true.mask.sum()
    both = placed.mask & true.mask & np.isfinite(placed.uv).all(axis=-1)
    assert both.sum() > 0.96 * true.mask.sum()
    angles = np.degrees(np.arccos(np.clip((placed.normals[both] * true.normals[both]).sum(axis=-1), -1, 1)))
    assert np.median(angles) < 0.5 and np.quantile(angles, 0.95) < 5
    distance = np.linalg.norm(placed.uv[both] - true.uv[both], axis=-1)
    assert np.median(distance) < 5e-4 and np.quantile(distance, 0.97) < 5e-3


def test_nothing_is_blended_across_a_seam() -> None:
    uv = np.zeros((8, 8, 2), np.float32)
    uv[:, :4], uv[:, 4:] = 0.1, 0.9
    normals = np.tile(np.array((0, 0, -1), np.float32), (8, 8, 1))
    maps = DenseMaps(uv, normals, np.ones((8, 8), bool))
    placed = place_maps(maps, np.array(((2.5, 0, 0), (0, 2.5, 0))), 20, 20)
    values = placed.uv[placed.mask]
    assert len(values) >= 396 and (np.isclose(values, 0.1) | np.isclose(values, 0.9)).all()


def test_normals_of_head_space_do_not_turn_with_the_crop() -> None:
    normals = np.tile(np.array((0.6, 0.0, 0.8), np.float32), (16, 16, 1))
    maps = DenseMaps(np.full((16, 16, 2), 0.5, np.float32), normals, np.ones((16, 16), bool), "head")
    turned = FaceCrop.of(np.array((8.0, 8.0)), 16.0, 0.5, 16).image_from_crop
    placed = place_maps(maps, turned, 16, 16)
    np.testing.assert_allclose(
        placed.normals[placed.mask], np.broadcast_to((0.6, 0, 0.8), (placed.mask.sum(), 3)), atol=1e-6
    )
    assert with_camera_normals(placed, CAMERA) is placed


def test_pixels_without_evidence_stay_without() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    values = np.where(mask[..., None], np.float32(0.25), np.float32(np.nan))
    maps = DenseMaps(np.repeat(values, 2, axis=-1), np.repeat(values, 3, axis=-1), mask)
    placed = place_maps(maps, np.array(((1.0, 0, 3.0), (0, 1.0, 1.0))), 12, 12)
    assert placed.mask.sum() == 16 and placed.mask[3:7, 5:9].all()
    assert np.isnan(placed.uv[~placed.mask]).all() and np.isnan(placed.normals[~placed.mask]).all()
    np.testing.assert_allclose(placed.uv[placed.mask], 0.25)
