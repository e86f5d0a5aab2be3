from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pxr import Gf, Usd, UsdGeom, UsdShade, UsdSkel, UsdUtils

from flame.camera import Intrinsics, project
from flame.errors import InputError
from flame.shading import vertex_normals
from tests.tracker.export.tracks import small_track, toy_head_file
from tracker.errors import OutputError
from tracker.export import Exported, ExportJob, ExportOptions, export
from tracker.export.rig import head_motion, rig_head
from tracker.export.usd import write as write_usd
from tracker.export.usd_clock import clock_of
from tracker.export.usd_person import identifiers
from tracker.export.usd_shapes import with_positive_correctives
from tracker.result import Track
from tracker.texture import HeadTexture

OFF_CENTRE = Intrinsics(310.0, 280.0, 101.5, 118.25, 256, 192)
FLIP = np.array((1.0, -1.0, -1.0))
TOLERANCE_METRES = 5e-6
BLENDER = Path(__file__).parents[2] / "interop" / "blender_usd_vertices.py"


def write(track: Track, folder: Path) -> Exported:
    return export(track, ["usd"], folder, texture=False)[0]


@pytest.fixture(scope="module")
def two_flame(tmp_path_factory) -> tuple[Track, Exported]:
    """Return a track of two people on a FLAME file, seen off the camera's centre, and its export."""
    folder = tmp_path_factory.mktemp("two_flame")
    lost = ((0, 0), (0, 1), (0, 5), (1, 3), (1, 4))
    track = small_track(toy_head_file(folder), people=2, frames=20, lost=lost, intrinsics=OFF_CENTRE)
    return track, write(track, folder)


@pytest.fixture(scope="module")
def commons(tmp_path_factory) -> tuple[Track, Exported]:
    """Return a track of one person on the commons head, and its export."""
    track = small_track(frames=20)
    return track, write(track, tmp_path_factory.mktemp("commons"))


def opened(exported: Exported) -> Usd.Stage:
    return Usd.Stage.Open(str(exported.paths[0]))


def problems(path: Path) -> list[str]:
    """Return what OpenUSD's own checks find: every validator, and ComplianceChecker as for phones where it is left."""
    validation = pytest.importorskip("pxr.UsdValidation", reason="OpenUSD before 25.11 cannot validate from Python")
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 20
    errors = validation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))
    found = [f"{error.GetName()}: {error.GetMessage()}" for error in errors]
    if hasattr(UsdUtils, "ComplianceChecker"):  # until 26.5
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            checker = UsdUtils.ComplianceChecker(arkit=True)
        checker.CheckCompliance(str(path))
        found += [*checker.GetErrors(), *checker.GetWarnings(), *checker.GetFailedChecks()]
    return found


def posed(stage: Usd.Stage, person: int, codes) -> np.ndarray:
    """Return the points that OpenUSD poses, (codes, V, 3), in camera space."""
    root = UsdSkel.Root(stage.GetPrimAtPath(f"/Track/Person_{person}"))
    cache = UsdSkel.Cache()
    cache.Populate(root, Usd.PrimDefaultPredicate)
    (binding,) = cache.ComputeSkelBindings(root, Usd.PrimDefaultPredicate)
    skeleton = cache.GetSkelQuery(binding.GetSkeleton())
    (skin,) = binding.GetSkinningTargets()
    mesh = UsdGeom.Mesh(skin.GetPrim())
    shapes = UsdSkel.BlendShapeQuery(UsdSkel.BindingAPI(mesh))
    indices = shapes.ComputeBlendShapePointIndices()
    points = []
    for code in codes:
        weights = skin.GetBlendShapeMapper().Remap(skeleton.GetAnimQuery().ComputeBlendShapeWeights(code))
        parts = shapes.ComputeSubShapeWeights(weights)
        at = mesh.GetPointsAttr().Get(code)
        assert shapes.ComputeDeformedPoints(*parts, indices, shapes.ComputeSubShapePointOffsets(), at)
        turns = skeleton.ComputeSkinningTransforms(code)
        assert skin.ComputeSkinnedPoints(turns, at, code)
        points.append(np.array(at) * FLIP)
    return np.stack(points)


def samples(stage: Usd.Stage, person: int) -> list[float]:
    animation = UsdSkel.Animation(stage.GetPrimAtPath(f"/Track/Person_{person}/Skeleton/Animation"))
    times = animation.GetRotationsAttr().GetTimeSamples()
    assert animation.GetTranslationsAttr().GetTimeSamples() == times
    assert animation.GetBlendShapeWeightsAttr().GetTimeSamples() == times
    return times


@pytest.mark.parametrize("case", ["commons", "two_flame"])
def test_openusd_poses_the_tracks_vertices(case, request):
    track, exported = request.getfixturevalue(case)
    stage = opened(exported)
    for person in range(track.num_people):
        codes = samples(stage, person)
        points = posed(stage, person, codes)
        for frame in np.flatnonzero(track.is_tracked[person]):
            np.testing.assert_allclose(points[frame], track.vertices(int(frame), person), atol=TOLERANCE_METRES)


def test_openusds_own_baking_and_the_package_agree(two_flame):
    track, exported = two_flame
    stage = Usd.Stage.Open(str(exported.paths[1]))
    assert UsdSkel.BakeSkinning(Usd.PrimRange.Stage(stage), Gf.Interval(6, 8))
    for person in range(2):
        baked = np.array(UsdGeom.Mesh(stage.GetPrimAtPath(f"/Track/Person_{person}/Head")).GetPointsAttr().Get(7))
        np.testing.assert_allclose(baked * FLIP, track.vertices(7, person), atol=TOLERANCE_METRES)


@pytest.mark.parametrize("case", ["commons", "two_flame"])
def test_openusd_finds_no_fault(case, request):
    for path in request.getfixturevalue(case)[1].paths:
        assert problems(path) == []


def test_the_checks_find_faults(commons, tmp_path):
    stage = opened(commons[1])
    stage.ClearDefaultPrim()
    stage.GetPrimAtPath("/Track/Person_0/Head").RemoveAppliedSchema("SkelBindingAPI")
    stage.GetRootLayer().Export(str(tmp_path / "bad.usda"))
    assert len(problems(tmp_path / "bad.usda")) >= 2


def test_the_camera_projects_as_ours(two_flame):
    track, exported = two_flame
    stage = opened(exported)
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/Track/Camera"))
    frustum = camera.GetCamera(0).frustum
    clip_from_world = np.array(frustum.ComputeViewMatrix()) @ np.array(frustum.ComputeProjectionMatrix())
    points = track.vertices(7, 1).astype(np.float64)
    clip = np.column_stack((points * FLIP, np.ones(len(points)))) @ clip_from_world
    across = (clip[:, :2] / clip[:, 3:] * (0.5, -0.5) + 0.5) * (OFF_CENTRE.width, OFF_CENTRE.height)
    np.testing.assert_allclose(across, project(points, OFF_CENTRE), atol=1e-3)
    assert np.ptp(across[:, 0]) > 20
    # Tenths of a metre: what the programs show is a lens for a film of 36 mm.
    assert 100 * camera.GetHorizontalApertureAttr().Get() == pytest.approx(36.0)
    assert 100 * camera.GetFocalLengthAttr().Get() == pytest.approx(36.0 * 310 / 256)


def test_what_lies_where(commons):
    track, exported = commons
    stage = opened(exported)
    assert stage.GetDefaultPrim().GetPath() == "/Track"
    assert UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.y and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0.0, 19.0)
    assert stage.GetTimeCodesPerSecond() == stage.GetFramesPerSecond() == pytest.approx(25.0)
    assert [Usd.ModelAPI(stage.GetPrimAtPath(path)).GetKind() for path in ("/Track", "/Track/Person_0")] == [
        "assembly",
        "component",
    ]
    skeleton = UsdSkel.Skeleton(stage.GetPrimAtPath("/Track/Person_0/Skeleton"))
    joints = ["root", "root/neck", "root/neck/jaw", "root/neck/left_eye", "root/neck/right_eye"]
    assert list(skeleton.GetJointsAttr().Get()) == joints
    head = stage.GetPrimAtPath("/Track/Person_0/Head")
    names = [child.GetName() for child in head.GetChildren()]
    assert names[: len(track.expression_names)] == list(track.expression_names)
    assert all(name.startswith("pose_") for name in names[len(track.expression_names) :])
    assert list(UsdSkel.BindingAPI(head).GetBlendShapesAttr().Get()) == names


def test_the_mesh_keeps_vertices_and_texture_coordinates(commons):
    track, exported = commons
    topology = track.head_model.topology
    stage = opened(exported)
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/Track/Person_0/Head"))
    assert len(mesh.GetPointsAttr().Get()) == track.head_model.num_vertices
    assert mesh.GetSubdivisionSchemeAttr().Get() == UsdGeom.Tokens.none
    corners = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    np.testing.assert_array_equal(corners, track.head_model.faces.numpy())
    st = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st")
    assert st.GetInterpolation() == UsdGeom.Tokens.faceVarying
    flat = np.array(st.ComputeFlattened()).reshape(-1, 3, 2)
    np.testing.assert_allclose(flat, topology.uv[topology.uv_faces], atol=1e-7)


def test_normals_and_bounds_follow_the_pose(commons):
    track, exported = commons
    stage = opened(exported)
    root = UsdSkel.Root(stage.GetPrimAtPath("/Track/Person_0"))
    for frame in (0, 11):
        vertices = track.vertices(frame) * FLIP
        bounds = np.array(root.GetExtentAttr().Get(frame))
        np.testing.assert_allclose(bounds, (vertices.min(axis=0), vertices.max(axis=0)), atol=TOLERANCE_METRES)
    # Blended normals are exact for one shape alone; of many, together, they are close.
    rig = rig_head(track, 0)
    shape = UsdSkel.BlendShape(stage.GetPrimAtPath("/Track/Person_0/Head/mouthPucker"))
    normals = vertex_normals(rig.rest_vertices, rig.faces)
    normals[np.array(shape.GetPointIndicesAttr().Get())] += np.array(shape.GetNormalOffsetsAttr().Get())
    puckered = rig.rest_vertices + rig.morph_deltas[rig.morph_names.index("mouthPucker")]
    np.testing.assert_allclose(normals, vertex_normals(puckered, rig.faces), atol=2e-4)
    assert UsdSkel.BakeSkinning(Usd.PrimRange.Stage(stage), Gf.Interval(11, 11))
    blended = np.array(UsdGeom.Mesh(stage.GetPrimAtPath("/Track/Person_0/Head")).GetNormalsAttr().Get(11))
    cosine = (blended * vertex_normals(track.vertices(11) * FLIP, rig.faces)).sum(axis=1)
    assert np.quantile(cosine, 0.02) > 0.95


def test_lost_people_are_invisible_and_hold_their_pose(two_flame):
    track, exported = two_flame
    stage = opened(exported)
    for person in range(2):
        prim = UsdGeom.Imageable(stage.GetPrimAtPath(f"/Track/Person_{person}"))
        shown = [prim.ComputeVisibility(code) == UsdGeom.Tokens.inherited for code in range(20)]
        assert shown == track.is_tracked[person].tolist()
    early, first, held, last = posed(stage, 0, [0.0, 2.0, 5.0, 4.0])
    np.testing.assert_array_equal(early, first)
    np.testing.assert_array_equal(held, last)
    assert exported.notes[0] == "Person_0 is invisible in 3 of 20 frames, where it is lost."


def test_people_who_are_never_tracked_are_left_out(tmp_path):
    exported = write(small_track(toy_head_file(tmp_path), people=2, frames=2, lost=((0, 0), (0, 1))), tmp_path)
    stage = opened(exported)
    assert not stage.GetPrimAtPath("/Track/Person_0") and stage.GetPrimAtPath("/Track/Person_1")
    assert any("left out: person 0" in note for note in exported.notes)


def test_one_image(tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=1)
    exported = write(track, tmp_path)
    stage = opened(exported)
    assert stage.GetStartTimeCode() == stage.GetEndTimeCode() == 0.0
    for code in (0.0, Usd.TimeCode.Default()):
        np.testing.assert_allclose(posed(stage, 0, [code])[0], track.vertices(0), atol=TOLERANCE_METRES)
    assert problems(exported.paths[0]) == []


def test_correctives_are_split_by_sign_and_expressions_kept():
    track = small_track(frames=5)
    rig = rig_head(track, 0)
    motion = head_motion(track, 0, rig)
    assert (motion.morph_weights < -0.01).any()
    split_rig, split = with_positive_correctives(rig, motion)
    assert (split.morph_weights >= 0).all()
    assert split_rig.morph_names[: rig.num_expressions] == rig.morph_names[: rig.num_expressions]
    correctives = split_rig.morph_names[rig.num_expressions :]
    assert correctives[:3] == ("pose_jaw_00_minus", "pose_jaw_02", "pose_jaw_02_minus")
    moved, same = (
        np.einsum("tm,mvc->tvc", part.morph_weights, head.morph_deltas)
        for head, part in ((rig, motion), (split_rig, split))
    )
    np.testing.assert_allclose(same, moved, atol=1e-7)


def test_weights_beyond_blenders_sliders_are_told(tmp_path, two_flame, commons):
    assert not any("Blender" in note for note in commons[1].notes)
    track = small_track(toy_head_file(tmp_path), frames=2)
    track.expression[0, 1, 0] = -1.5
    assert any("Blender" in note for note in write(track, tmp_path).notes)


@pytest.mark.parametrize("texture", [True, False])
def test_material(tmp_path, monkeypatch, texture):
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    monkeypatch.setattr(ExportJob, "texture", lambda self, person: HeadTexture(rgb, np.ones((64, 64), np.float32)))
    track = small_track(people=2, frames=2)
    if not texture:
        track = small_track(toy_head_file(tmp_path), frames=2)  # a FLAME file without texture coordinates
    exported = export(track, ["usd"], tmp_path)[0]
    for path in exported.paths:
        assert problems(path) == []
        stage = Usd.Stage.Open(str(path))
        material, _ = UsdShade.MaterialBindingAPI(stage.GetPrimAtPath("/Track/Person_0/Head")).ComputeBoundMaterial()
        assert material.GetPath() == "/Track/Person_0/Material"
        shader = stage.GetPrimAtPath("/Track/Person_0/Material/Texture")
        assert bool(shader) == texture
        painted = stage.GetPrimAtPath("/Track/Person_0/Material/Colors")
        assert bool(painted) == (not texture)
        if texture:
            file = shader.GetAttribute("inputs:file").Get()
            assert file.path.lstrip("./") == "person_0.png" and file.resolvedPath
    assert (exported.folder / "person_1.png").exists() == texture
    if texture:
        np.testing.assert_array_equal(np.asarray(Image.open(exported.folder / "person_0.png")), rgb)


def test_without_the_clip_heads_are_painted_and_it_is_told(tmp_path):
    exported = export(small_track(frames=2), ["usd"], tmp_path)[0]
    assert any("without texture" in note for note in exported.notes)
    stage = opened(exported)
    colors = UsdGeom.Mesh(stage.GetPrimAtPath("/Track/Person_0/Head")).GetDisplayColorAttr()
    assert len(np.unique(np.array(colors.Get()), axis=0)) > 3  # skin, lips, eyes, pupils


def test_constant_rates_count_frames():
    numbers = np.arange(7, 300)
    for rate in (24000 / 1001, 24, 25, 30000 / 1001, 30, 60, 12):
        for seconds in (numbers / rate, np.round(numbers / rate, 3) + 1.5):
            clock = clock_of(numbers, seconds)
            assert clock.is_constant and clock.rate == pytest.approx(rate, abs=1e-9)
            np.testing.assert_array_equal(clock.codes, numbers)
    unusual = clock_of(numbers, numbers / 13.37)
    assert unusual.is_constant and unusual.rate == pytest.approx(13.37)


def test_varying_rates_follow_the_timestamps():
    intervals = np.where(np.arange(50) % 7 == 3, 0.1, 1 / 30)
    seconds = 2.0 + np.concatenate(((0.0,), np.cumsum(intervals)))
    clock = clock_of(np.arange(51), seconds)
    assert not clock.is_constant and clock.rate == 30.0 and clock.codes[0] == 0.0
    np.testing.assert_allclose(clock.codes / clock.rate, seconds - 2.0, atol=1e-9)


def test_varying_rates_are_exported(tmp_path):
    track = small_track(toy_head_file(tmp_path), frames=5)
    track.pts_seconds[3:] += 0.013
    exported = write(track, tmp_path)
    stage = opened(exported)
    codes = samples(stage, 0)
    np.testing.assert_allclose(np.array(codes) / stage.GetTimeCodesPerSecond(), track.pts_seconds, atol=1e-9)
    np.testing.assert_allclose(posed(stage, 0, codes[3:4])[0], track.vertices(3), atol=TOLERANCE_METRES)
    assert any("frame rate varies" in note for note in exported.notes)


def test_names_become_identifiers():
    assert identifiers(["jaw open", "jaw-open", "2d", "", "ok"]) == ["jaw_open", "jaw_open_2", "_2d", "_", "ok"]


def test_missing_openusd_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr.Vt", None)
    monkeypatch.delitem(sys.modules, "tracker.export.usd_modules")
    with pytest.raises(InputError, match="pip install usd-core"):
        importlib.import_module("tracker.export.usd_modules")


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    job = ExportJob(small_track(toy_head_file(tmp_path), frames=1), tmp_path / "file", ExportOptions(texture=False))
    with pytest.raises(OutputError, match="cannot be written"):
        write_usd(job)


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="Blender's module is not installed")
@pytest.mark.parametrize("case", ["commons", "two_flame"])
def test_blender_poses_the_tracks_vertices(case, request, tmp_path):
    track, exported = request.getfixturevalue(case)
    result = tmp_path / "result.npz"
    codes = ",".join(str(code) for code in range(20))
    command = [sys.executable, str(BLENDER), str(exported.paths[0]), codes, str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.exists(), done.stdout + done.stderr
    with np.load(result) as told:
        for person in range(track.num_people):
            for frame in np.flatnonzero(track.is_tracked[person]):
                expected = track.vertices(int(frame), person) * FLIP
                np.testing.assert_allclose(told[f"Person_{person}"][frame], expected, atol=TOLERANCE_METRES)
        if case == "commons":  # Blender reads one focal length only: square pixels
            camera = track.intrinsics
            left, right = -camera.cx / camera.fx, (camera.width - camera.cx) / camera.fx
            np.testing.assert_allclose(told["window"][:, 0], (left, right), atol=1e-6)
