from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from flame.camera import Intrinsics
from flame.errors import InputError
from flame.loading import load_head
from flame.model import HeadModel
from priors.face_crop import ray_from_cam
from priors.networks.flip import UvMirror
from priors.pixel_kinds import Kind
from priors.training.augmentation import UNKNOWN, LabelledPicture, augment, mirrored, warped
from priors.training.batches import (
    BatchLoader,
    BatchShape,
    DataSet,
    SampleOrder,
    as_arrays,
    parse_data,
    read_picture,
    resized_labels,
    step_slices,
)
from priors.training.labels import LabelMaps
from priors.training.settings import NO_AUGMENTATION, AugmentationSettings
from tests.priors.training.painted_shards import PaintedSamples
from tests.toy_head import make_toy_head

YAW, PITCH = 0.35, -0.2


class Drawn:
    """Samples held in memory."""

    def __init__(self, samples: list[tuple[np.ndarray, LabelMaps, dict[str, Any]]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, number: int) -> tuple[np.ndarray, LabelMaps, dict[str, Any]]:
        return self.samples[number]


@pytest.fixture(scope="module")
def toy() -> HeadModel:
    return make_toy_head(torch.float32)


@pytest.fixture(scope="module")
def source(toy: HeadModel) -> Drawn:
    drawn = PaintedSamples(toy)
    rng = np.random.default_rng(3)
    return Drawn([drawn.draw(*rng.uniform(-0.4, 0.4, 2), side=48) for _ in range(7)])


@pytest.fixture(scope="module")
def picture(toy: HeadModel) -> LabelledPicture:
    return read_picture(Drawn([PaintedSamples(toy).draw(YAW, PITCH, side=96)]), 0)


def inner(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask away from its border."""
    result = mask.copy()
    for axis, step in itertools.product((0, 1), (-1, 1)):
        result &= np.roll(mask, step, axis)
    return result


def test_mirror_image_is_that_of_the_mirrored_head() -> None:
    head = load_head("commons")
    drawn = PaintedSamples(head)
    flipped = mirrored(read_picture(Drawn([drawn.draw(YAW, PITCH, side=96)]), 0), UvMirror.of(head))
    mirror = read_picture(Drawn([drawn.draw(YAW, PITCH, side=96, mirrored=True)]), 0)
    assert (flipped.labels.valid == mirror.labels.valid).mean() > 0.998
    both = inner(flipped.labels.valid & mirror.labels.valid)
    assert both.sum() > 1000
    assert np.median(np.linalg.norm(flipped.labels.place - mirror.labels.place, axis=-1)[both]) < 2e-4
    assert np.median(np.linalg.norm(flipped.labels.uv - mirror.labels.uv, axis=-1)[both]) < 2e-3
    for space in ("ray", "head", "camera"):
        ours, truth = (as_arrays(each, BatchShape(96, 96, space))["normals"][both] for each in (flipped, mirror))
        assert np.median(np.einsum("nc,nc->n", ours, truth)) > 0.9999, space
    np.testing.assert_allclose(flipped.cam_from_neck, mirror.cam_from_neck, atol=1e-6)
    assert flipped.intrinsics.cx == pytest.approx(mirror.intrinsics.cx)


def test_mirroring_twice_changes_nothing(picture: LabelledPicture) -> None:
    again = mirrored(mirrored(picture, lambda uv: 1 - uv), lambda uv: 1 - uv)
    np.testing.assert_array_equal(again.image, picture.image)
    np.testing.assert_array_equal(again.labels.place, picture.labels.place)
    np.testing.assert_allclose(again.labels.uv, picture.labels.uv, atol=1e-6)
    assert again.intrinsics == picture.intrinsics


def test_warped_labels_are_those_of_the_warped_camera(toy: HeadModel, picture: LabelledPicture) -> None:
    turned = warped(picture, 0.2, 1.15, (5.0, -3.0))
    camera, labels = turned.intrinsics, turned.labels
    # Head space normals do not know of the camera; a point's normal is the same wherever the picture shows it.
    normals_head = as_arrays(turned, BatchShape(96, 96, "head"))["normals"]
    before = as_arrays(picture, BatchShape(96, 96, "head"))["normals"]
    shown = labels.valid & (labels.kind == Kind.SKIN)
    places, known = labels.place[shown], picture.labels.place[picture.labels.valid]
    nearest = np.argmin(np.linalg.norm(places[::7, None] - known[None], axis=-1), axis=1)
    np.testing.assert_allclose(normals_head[shown][::7], before[picture.labels.valid][nearest], atol=1e-5)
    # Where the new camera sees a direction, the new picture shows what the old one showed there.
    rays = np.array(((0.03, 0.05, 1.0), (-0.08, 0.1, 1.0), (0.1, -0.05, 1.0)))
    turn = turned.cam_from_neck @ picture.cam_from_neck.T
    for ray in rays:
        new = turn @ ray
        old_pixel = np.floor(pixel_of(ray, picture.intrinsics)).astype(int)
        new_pixel = np.floor(pixel_of(new, camera)).astype(int)
        if labels.valid[new_pixel[1], new_pixel[0]] and picture.labels.valid[old_pixel[1], old_pixel[0]]:
            a, b = labels.place[new_pixel[1], new_pixel[0]], picture.labels.place[old_pixel[1], old_pixel[0]]
            assert np.linalg.norm(a - b) < 0.008
    assert (labels.kind == UNKNOWN).any() and not labels.valid[labels.kind == UNKNOWN].any()


def pixel_of(ray: np.ndarray, camera: Intrinsics) -> np.ndarray:
    return np.array((camera.fx * ray[0] / ray[2] + camera.cx, camera.fy * ray[1] / ray[2] + camera.cy))


def test_erased_pixels_lose_their_labels(picture: LabelledPicture) -> None:
    only_erase = replace(NO_AUGMENTATION, erase=1.0)
    for seed in range(8):
        changed = augment(picture, only_erase, np.random.default_rng(seed))
        labels = changed.labels
        lost = picture.labels.valid & ~labels.valid
        assert (labels.kind[lost] == Kind.COVER).all()
        assert (labels.normals_cam[lost] == 0).all() and (labels.uv[lost] == 0).all()
        np.testing.assert_array_equal(labels.place[labels.valid], picture.labels.place[labels.valid])
        kept = labels.kind == picture.labels.kind
        assert (changed.image == picture.image).all(axis=-1)[inner(inner(kept))].mean() > 0.99
        assert set(np.unique(labels.kind)) <= {Kind.BACKGROUND, Kind.SKIN, Kind.COVER, UNKNOWN}


def test_ray_normals_are_camera_normals_turned(picture: LabelledPicture) -> None:
    ray = as_arrays(picture, BatchShape(96, 96, "ray"))["normals"]
    cam = as_arrays(picture, BatchShape(96, 96, "camera"))["normals"]
    np.testing.assert_allclose(ray, cam @ ray_from_cam(picture.intrinsics).T, atol=1e-5)
    assert np.abs(ray - cam).max() > 0.02


def test_reduced_labels_are_means_of_whole_blocks(picture: LabelledPicture) -> None:
    small = resized_labels(picture.labels, 48)
    blocks = picture.labels.place.reshape(48, 2, 48, 2, 3).swapaxes(1, 2).reshape(48, 48, 4, 3)
    np.testing.assert_allclose(small.place[small.valid], blocks.mean(axis=2)[small.valid], atol=1e-6)
    assert small.valid.sum() > 0.8 * picture.labels.valid.sum() / 4
    uv = picture.labels.uv.reshape(48, 2, 48, 2, 2).swapaxes(1, 2).reshape(48, 48, 4, 2)
    whole = small.valid & (np.ptp(uv, axis=2) < 0.05).all(axis=-1)
    assert whole.sum() > 0.9 * small.valid.sum()
    np.testing.assert_allclose(small.uv[whole], uv.mean(axis=2)[whole], atol=1e-6)
    assert not small.valid[np.isnan(blocks).any(axis=(2, 3))].any()
    np.testing.assert_allclose(np.linalg.norm(small.normals_cam[small.valid], axis=-1), 1, atol=1e-5)
    assert (small.normals_cam[~small.valid] == 0).all()
    np.testing.assert_array_equal(resized_labels(picture.labels, 192).kind[::2, ::2], picture.labels.kind)
    with pytest.raises(InputError, match="labels of 96 pixels cannot be reduced to 40"):
        resized_labels(picture.labels, 40)


def test_every_epoch_shows_every_sample_in_another_order() -> None:
    order = SampleOrder([5, 4], [1.0, 2.0], seed=1)
    assert order.epoch_length == 13
    epochs = [[order[epoch * 13 + n] for n in range(13)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted([(0, n) for n in range(5)] + 2 * [(1, n) for n in range(4)])
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[1] == [SampleOrder([5, 4], [1.0, 2.0], seed=1)[13 + n] for n in range(13)]
    assert [order[n] for n in range(13)] == epochs[0]
    assert epochs[0] != [SampleOrder([5, 4], [1.0, 2.0], seed=2)[n] for n in range(13)]


def test_processes_and_parts_share_the_samples_of_a_step() -> None:
    whole = [set(next(step_slices(step, 12, 1))) for step in (0, 1)]
    for parts, world in ((3, 1), (1, 2), (2, 3)):
        shares = [step_slices(0, 12, parts, rank, world) for rank in range(world)]
        for step in (0, 1):
            taken = [number for share in shares for _ in range(parts) for number in next(share)]
            assert sorted(taken) == sorted(whole[step])
    assert next(step_slices(7, 12, 1)) == range(84, 96)


def test_batches_do_not_depend_on_the_number_of_workers(source: Drawn) -> None:
    shape, settings = BatchShape(48, 24), AugmentationSettings()
    found = []
    for workers in (1, 3):
        loader = BatchLoader([DataSet(source)], shape, seed=5, augmentation=settings, workers=workers)
        found.append(list(loader.batches(itertools.islice(step_slices(2, 4, 1), 3))))
    assert len(found[0]) == 3
    for a, b in zip(*found, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    other = BatchLoader([DataSet(source)], shape, seed=6, augmentation=settings)
    assert not torch.equal(next(other.batches(step_slices(2, 4, 1)))["image"], found[0][0]["image"])


def test_batch_has_the_promised_form(source: Drawn) -> None:
    loader = BatchLoader([DataSet(source)], BatchShape(48, 24), augmentation=AugmentationSettings())
    batch = next(loader.batches(step_slices(0, 6, 1)))
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert shapes == {
        "image": ((6, 3, 48, 48), torch.float32),
        "place": ((6, 3, 24, 24), torch.float32),
        "normals": ((6, 3, 24, 24), torch.float32),
        "uv": ((6, 2, 24, 24), torch.float32),
        "kind": ((6, 24, 24), torch.int64),
        "valid": ((6, 24, 24), torch.bool),
    }
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert 0 <= batch["image"].min() and batch["image"].max() <= 1
    assert all(torch.isfinite(value).all() for value in batch.values())
    length = batch["normals"].norm(dim=1)
    torch.testing.assert_close(length[batch["valid"]], torch.ones(int(batch["valid"].sum())), atol=1e-4, rtol=0)
    assert batch["kind"].min() >= -1


def test_damaged_sample_is_reported_by_the_loader() -> None:
    image, labels = np.zeros((8, 8, 3), np.uint8), LabelMaps(*(np.zeros((8, 8, 3), np.float32),) * 3, np.zeros((8, 8)))
    loader = BatchLoader([DataSet(Drawn([(image, labels, {})]))], BatchShape(8, 8))
    with pytest.raises(InputError, match="lacks its camera"):
        next(loader.batches(step_slices(0, 2, 1)))


@pytest.mark.parametrize(
    ("text", "expected"), [("a/b", ("a/b", 1.0)), ("real=3", ("real", 3.0)), ("x=0.5", ("x", 0.5))]
)
def test_data_argument(text: str, expected: tuple[str, float]) -> None:
    folder, times = parse_data(text)
    assert (str(folder), times) == expected


@pytest.mark.parametrize("text", ["real=0", "real=many", "real=-1", "real=inf", "real="])
def test_bad_data_argument(text: str) -> None:
    with pytest.raises(InputError, match="no number above 0"):
        parse_data(text)
