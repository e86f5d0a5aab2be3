"""The released networks as a prior: their maps reach the tracker in the right spaces, and errors teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs import load_preset, override
from flame.camera import Intrinsics
from flame.errors import AssetMissingError, InputError
from flame.loading import load_head
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from priors import PRIOR_NAMES, create_prior
from priors.dense_rendering import render_dense_maps
from priors.evidence import DenseMaps
from priors.networks import build_network
from priors.networks.released import ReleasedSurface, raw_from_normals, raw_from_uv
from priors.networks.weights import WeightsCard, save_network
from priors.pixel3dmm import Pixel3DMMPrior, SurfacePredictor, transfer_file
from priors.prior_surface import ANY_HEAD, FLAME
from priors.uv_transfer import UvTransfer, save_transfer
from tests.priors.networks.released_files import SMALL, checkpoint, save
from tests.priors.networks.test_vit import SMALL as VIT
from tests.toy_head import make_toy_head
from tests.tracker.face_clips import portrait
from tracker.api import track
from tracker.run import build_parser, main

_SIZE = 512


@pytest.fixture(scope="module")
def commons() -> HeadModel:
    return load_head("commons")


@pytest.fixture(scope="module")
def weights(commons, tmp_path_factory) -> Path:
    """Return a folder with small random networks in the released layout, and a transfer to the commons head.

    The texture coordinates that they predict lie on the face, those of picture and mirror image near each other.
    """
    folder = tmp_path_factory.mktemp("weights")
    content = checkpoint(replace(SMALL, outputs=("uv_map",)), seed=1)
    face = UvTransfer.within(commons, "FLAME")
    rows, columns = np.nonzero(np.isfinite(face.uv).all(axis=-1))
    u, v = np.median(columns) / len(face.uv), np.median(rows) / len(face.uv)
    state = content["state_dict"]
    state["net.token_2_patch_content.weight"] *= 0.01
    state["net.token_2_patch_content.bias"] = torch.tensor((2 * u - 1, 1 - 2 * v)).float().repeat(4)
    save(content, folder / "uv.ckpt")
    save(checkpoint(replace(SMALL, outputs=("normals",)), seed=2), folder / "normals.ckpt")
    save_transfer(folder / transfer_file(commons), face)
    return folder


class Rendered(nn.Module):
    """Answer as one of the released networks would if it were exact: ``maps`` of the picture and of its mirror."""

    def __init__(self, name: str, seen: Tensor, mirrored: Tensor) -> None:
        super().__init__()
        self._name, self._seen, self._mirrored = name, seen, mirrored

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {self._name: torch.cat((self._seen, self._mirrored))}


class Everywhere:
    """Take every pixel for a person."""

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        return np.ones(picture.shape[:2], np.float32)


def rendered(head: HeadModel, *, is_mirrored: bool) -> DenseMaps:
    """Render maps in head space of a turned head with its neck bent, or of its mirror image."""
    neck, root = np.array((0.1, -0.15, 0.05)), np.array((0.1, 0.3, 0.1))
    if is_mirrored:
        neck, root = neck * (1, -1, -1), root * (1, -1, -1)
    with torch.no_grad():
        verts = head.vertices(neck=torch.tensor(neck).to(head.dtype)).double().numpy()
    cam_from_head = matrix_from_axis_angle(root) @ np.diag((1.0, -1.0, -1.0))
    verts_cam = (verts - verts.mean(axis=0) * (0, 1, 1)) @ cam_from_head.T + (0, 0, 0.9)
    return render_dense_maps(
        head,
        verts_cam,
        Intrinsics.from_fov(24.0, _SIZE, _SIZE),
        normal_space="head",
        cam_from_neck=cam_from_head @ matrix_from_axis_angle(neck),
    )


def tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.nan_to_num(values, nan=-3.0)).float().permute(2, 0, 1)[None]


def exact_networks(head: HeadModel) -> tuple[DenseMaps, ReleasedSurface]:
    """Return maps of a head, and networks that say just that in the release's conventions."""
    seen, mirrored = (rendered(head, is_mirrored=side) for side in (False, True))
    uv = Rendered("uv_map", *(raw_from_uv(tensor(maps.uv)) for maps in (seen, mirrored)))
    normals = Rendered("normals", *(raw_from_normals(7.0 * tensor(maps.normals)) for maps in (seen, mirrored)))
    return seen, ReleasedSurface(uv, normals)  # type: ignore[arg-type]


def test_exact_predictions_survive_both_conventions(commons):
    seen, networks = exact_networks(commons)
    predict = SurfacePredictor(networks, UvTransfer.within(commons, "FLAME"))
    predict._segment = Everywhere()  # type: ignore[assignment]
    found = predict(np.zeros((_SIZE, _SIZE, 3), np.uint8))
    assert found.normal_space == FLAME.normal_space == "head"
    both = seen.mask & found.mask
    # What is left out is scalp, and pixels at edges that the mirror image draws otherwise.
    assert both.sum() > 0.6 * seen.mask.sum() and (found.mask & ~seen.mask).sum() < 50
    away = np.abs(found.uv - seen.uv)[both].max(axis=1)
    assert np.quantile(away, 0.97) < 1e-4
    cosine = (found.normals * seen.normals)[both].sum(axis=1)
    assert np.quantile(cosine, 0.03) > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found.normals[both], axis=1), 1, atol=1e-5)
    assert np.isnan(found.uv[~found.mask]).all() and np.isnan(found.normals[~found.mask]).all()


def test_where_picture_and_mirror_image_disagree_there_is_no_face(commons):
    _, networks = exact_networks(commons)
    mirrored = networks.uv._mirrored  # type: ignore[union-attr]
    mirrored[:, 0, : _SIZE // 2] += 0.3
    predict = SurfacePredictor(networks, UvTransfer.within(commons, "FLAME"))
    predict._segment = Everywhere()  # type: ignore[assignment]
    mask = predict(np.zeros((_SIZE, _SIZE, 3), np.uint8)).mask
    assert not mask[: _SIZE // 2].any() and mask[_SIZE // 2 :].any()


def test_what_shows_no_person_is_left_out(commons):
    _, networks = exact_networks(commons)
    predict = SurfacePredictor(networks, UvTransfer.within(commons, "FLAME"))
    assert not predict(np.zeros((_SIZE, _SIZE, 3), np.uint8)).mask.any()


def test_a_transfer_turns_normals_into_the_head_s_axes(commons):
    seen, networks = exact_networks(commons)
    turn = matrix_from_axis_angle(np.array((0.2, 0.0, 0.0)))
    predict = SurfacePredictor(networks, replace(UvTransfer.within(commons, "FLAME"), rotation=turn))
    predict._segment = Everywhere()  # type: ignore[assignment]
    found = predict(np.zeros((_SIZE, _SIZE, 3), np.uint8))
    both = seen.mask & found.mask
    cosine = (found.normals[both] * (seen.normals[both] @ turn.T)).sum(axis=1)
    assert np.quantile(cosine, 0.03) > 0.9999


@pytest.mark.parametrize("preset", ["dense", "paper", "released"])
def test_a_picture_is_tracked_end_to_end(weights, tmp_path, preset):
    import cv2

    path = tmp_path / "face.png"
    cv2.imwrite(str(path), portrait()[..., ::-1])
    quick = [] if preset == "dense" else ["adam.steps=5", "solver.dense_px=96"]
    config = override(load_preset(preset), ["solver.max_iterations=3", "scout.iterations=2", *quick])
    found = track(path, None, prior="pixel3dmm", weights=weights, config=config, overlay=False)
    assert found.is_tracked.all()
    for values in (found.expression, found.rotation, found.translation, found.identity):
        assert np.isfinite(values).all()


def test_the_prior_sees_faces_and_declares_whose_surface_it_speaks_of(weights, commons):
    prior = create_prior("pixel3dmm", commons, weights=weights)
    assert isinstance(prior, Pixel3DMMPrior) and prior.name == "pixel3dmm"
    assert prior.map_surface is FLAME and str(FLAME) == "FLAME topology (5023 vertices, 9976 triangles)"
    assert not FLAME.is_of(commons) and ANY_HEAD.is_of(commons)
    image = portrait()
    evidence = prior.search(image)[0]
    maps = prior.dense(evidence, *image.shape[:2])
    assert maps.normal_space == "head" and maps.mask.shape == image.shape[:2] and 0.02 < maps.mask.mean() < 0.9
    assert (np.abs(np.linalg.norm(maps.normals[maps.mask], axis=1) - 1) < 1e-3).all()


def test_networks_of_one_s_own_serve_the_head_that_they_were_trained_for(tmp_path, commons):
    config = replace(VIT, outputs=("uv",), has_confidence=False)
    cards = {"uv": WeightsCard(config, "head", commons.content_hash)}
    cards["normals"] = replace(cards["uv"], network=replace(config, outputs=("normals",)))
    for output, card in cards.items():
        save_network(tmp_path / f"{output}.safetensors", build_network(card.network), card)
    prior = Pixel3DMMPrior(commons, tmp_path)
    assert prior.map_surface.topology == "commons" and prior.map_surface.is_of(commons)
    image = portrait()
    maps = prior.dense(prior.search(image)[0], *image.shape[:2])
    assert maps.mask.shape == image.shape[:2] and maps.normal_space == "head"
    for card, message in (
        (replace(cards["normals"], head_hash="x"), "was trained for another head than 'commons'"),
        (replace(cards["normals"], normal_space="ray"), "predicts normals in ray space, not head space"),
        (cards["uv"], "holds no network of kind 'vit' that predicts normals"),
    ):
        save_network(tmp_path / "normals.safetensors", build_network(card.network), card)
        with pytest.raises(InputError, match=message):
            Pixel3DMMPrior(commons, tmp_path)


def test_another_topology_is_refused(tmp_path, commons):
    with pytest.raises(
        InputError,
        match=r"speaks of the FLAME topology \(5023 vertices, 9976 triangles\); head 'commons' has 4570 vertices and "
        r"9084 triangles: use --head with a FLAME .*, or make .*flame_to_commons.npz from .* -m priors.flame_transfer",
    ):
        Pixel3DMMPrior(commons, tmp_path)


def test_a_transfer_to_another_head_is_refused(tmp_path, commons):
    toy = make_toy_head()
    transfer = replace(UvTransfer.within(commons, "FLAME"), head_hash=toy.content_hash)
    save_transfer(tmp_path / transfer_file(commons), transfer)
    with pytest.raises(InputError, match="is for another head than 'commons'; make it anew"):
        Pixel3DMMPrior(commons, tmp_path)


def test_a_flame_head_without_texture_coordinates_is_refused(tmp_path):
    toy = make_toy_head()
    faces = torch.zeros(9976, 3, dtype=torch.int64)
    flame = replace(toy, name="flame", template=torch.zeros(5023, 3), faces=faces, topology=None)
    with pytest.raises(InputError, match=r"'flame' has no texture coordinates.*put head_template.obj .* beside"):
        Pixel3DMMPrior(flame, tmp_path)


def as_large_as_flame(head: HeadModel) -> HeadModel:
    """Return a head with as many vertices and triangles as FLAME; those added are nowhere to be seen."""
    topology, vertices, triangles = head.topology, 5023 - head.num_vertices, 9976 - len(head.faces)
    assert topology is not None and topology.mirror is not None and topology.uv_faces is not None
    nothing = np.zeros((triangles, 3), np.int64)
    root = torch.eye(5)[:1].expand(vertices, 5)
    return replace(
        head,
        name="flame",
        template=torch.cat((head.template, torch.zeros(vertices, 3))),
        faces=torch.cat((head.faces, torch.from_numpy(nothing))),
        skin_weights=torch.cat((head.skin_weights, root)),
        topology=replace(
            topology,
            faces=np.concatenate((topology.faces, nothing)),
            uv_faces=np.concatenate((topology.uv_faces, nothing)),
            mirror=np.concatenate((topology.mirror, np.arange(head.num_vertices, 5023))),
            regions={name: np.pad(mask, (0, vertices)) for name, mask in topology.regions.items()},
        ),
    )


def test_a_flame_head_with_texture_coordinates_needs_nothing_but_the_weights(tmp_path, commons):
    with pytest.raises(AssetMissingError, match="has no uv.ckpt and no normals.ckpt"):
        Pixel3DMMPrior(as_large_as_flame(commons), tmp_path)


def test_missing_weights_are_named_with_their_licence(tmp_path, commons):
    save_transfer(tmp_path / transfer_file(commons), UvTransfer.within(commons, "FLAME"))
    with pytest.raises(AssetMissingError, match=r"has no uv.ckpt and no normals.ckpt: .*CC BY-NC 4.0.*--weights DIR"):
        create_prior("pixel3dmm", commons, weights=tmp_path)
    with pytest.raises(InputError, match=r"--prior pixel3dmm needs --weights DIR, the folder with uv.ckpt .*CC BY-NC"):
        create_prior("pixel3dmm", commons)
    with pytest.raises(InputError, match="prior 'mediapipe' has its own; they are for pixel3dmm and commons"):
        create_prior("mediapipe", commons, weights=tmp_path)
    with pytest.raises(InputError, match="unknown prior 'x'; choose one of: mediapipe, pixel3dmm, commons"):
        create_prior("x", commons)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prior", "pixel3dmm"), "error: --prior pixel3dmm needs --weights DIR"),
        (("--weights", "somewhere"), "error: --weights somewhere: prior 'mediapipe' has its own"),
        (("--prior", "pixel3dmm", "--weights", "."), "error: prior 'pixel3dmm' speaks of the FLAME topology"),
    ],
)
def test_the_command_line_says_so_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    import cv2

    monkeypatch.chdir(tmp_path)
    cv2.imwrite("face.png", portrait()[..., ::-1])
    assert main(["face.png", "--no-overlay", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(message) and "\n" not in error


def test_the_help_names_every_prior_and_what_it_needs():
    text = " ".join(build_parser().format_help().split())
    assert all(name in text for name in PRIOR_NAMES)
    for word in ("uv.ckpt", "normals.ckpt", "CC BY-NC 4.0", "huggingface.co/SimonGiebenhain/Pixel3dmm"):
        assert word in text
