"""One USD stage with all people of a track and the camera that saw them, and the same as a package for phones.

Written after OpenUSD's schema documents (openusd.org/release/api): UsdGeomCamera, UsdSkel ("Schemas In-Depth" and
"Object Model"), UsdPreviewSurface Specification and Usdz File Format Specification. What lies where:

- ``/Track`` is the default prim, an assembly in metres with +Y up; ``/Track/Camera`` stands at the origin and looks
  along -Z, so a point of OpenCV camera space is (x, -y, -z) here.
- ``/Track/Person_N`` is a SkelRoot with ``Head`` (the mesh in the head model's vertex order, its blend shapes below
  it), ``Skeleton`` with ``Animation`` (one sample a frame) and ``Material`` (the texture, or painted vertices).
- Blend shapes have the names of the head model's expressions; ``pose_<joint>_<row><column>`` are its pose correctives,
  split by sign (`tracker.export.usd_shapes`).
- Time codes are frame numbers where the clip's rate is constant, see `tracker.export.usd_clock`.
- Where a person is lost, ``Person_N`` is invisible and keeps its last pose (before the first one, that one).

Lens and film sizes of a UsdGeomCamera are tenths of a scene unit, here decimetres; the film is 36 mm wide. Its aperture
offsets say where on the film plane the frustum's window is centred, x to the right and y up (GfCamera's frustum), so a
principal point right of the picture's centre is a negative horizontal offset, one below it a positive vertical one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame.camera import Intrinsics
from tracker.errors import OutputError
from tracker.export.glb_mesh import painted
from tracker.export.job import ExportJob, Written
from tracker.export.rig import head_motion, rig_head
from tracker.export.usd_clock import Clock, clock_of
from tracker.export.usd_modules import Sdf, Tf, Usd, UsdGeom, UsdUtils
from tracker.export.usd_person import add_person
from tracker.export.usd_shapes import is_within_sliders, with_positive_correctives
from tracker.output_files import write_image

if TYPE_CHECKING:
    from tracker.result import Track

ROOT = "/Track"
"""Path of the default prim."""

_FILM_WIDTH = 0.36
"""Decimetres: a full-frame film of 36 mm, so that focal lengths read as photographers expect."""
_CLIPPING_METRES = (0.01, 100.0)


def write(job: ExportJob) -> Written:
    """Write ``track.usdc`` and ``track.usdz``, and the textures beside them.

    Raises:
        InputError: usd-core is not installed, or the clip cannot be read for textures.
        OutputError: a file cannot be written.
    """
    clock = clock_of(job.track.frame_index, job.track.pts_seconds)
    path = job.folder / "track.usdc"
    stage = Usd.Stage.CreateInMemory()
    _describe(stage, job.track, clock)
    _add_camera(stage, job.track.intrinsics)
    topology = job.track.head_model.topology
    regions = {} if topology is None else topology.regions
    wide = []
    for person in job.steps(job.people, len(job.people), "usd"):
        rig = rig_head(job.track, person)
        rig, motion = with_positive_correctives(rig, head_motion(job.track, person, rig))
        if not is_within_sliders(motion):
            wide.append(person)
        texture = job.texture(person) if rig.uv is not None else None
        picture = None if texture is None else f"person_{person}.png"
        if texture is not None and picture is not None:
            write_image(job.folder / picture, texture.rgb)
        colors = painted(rig, regions, person)
        add_person(stage, f"{ROOT}/Person_{person}", rig, motion, clock.codes, colors, picture)
    package = path.with_suffix(".usdz")
    _save(stage, path, package)
    return Written((path, package), _notes(job, clock, wide))


def _describe(stage: Any, track: Track, clock: Clock) -> None:
    """Write the stage's units and times and its default prim."""
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(clock.rate)
    stage.SetFramesPerSecond(clock.rate)
    stage.SetStartTimeCode(float(clock.codes[0]))
    stage.SetEndTimeCode(float(clock.codes[-1]))
    root = UsdGeom.Xform.Define(stage, ROOT).GetPrim()
    stage.SetDefaultPrim(root)
    Usd.ModelAPI(root).SetKind("assembly")
    clip = Path(str(track.info.get("source", {}).get("path", ""))).name or "a clip"
    head = Path(track.head).stem
    stage.GetRootLayer().documentation = f"Heads tracked in {clip} with the head model {head}, seen by /Track/Camera."


def _add_camera(stage: Any, intrinsics: Intrinsics) -> None:
    """Add the camera that projects as ``flame.camera.project`` does."""
    camera = UsdGeom.Camera.Define(stage, f"{ROOT}/Camera")
    focal = intrinsics.fx * _FILM_WIDTH / intrinsics.width
    film_height = intrinsics.height * focal / intrinsics.fy
    camera.CreateProjectionAttr(UsdGeom.Tokens.perspective)
    camera.CreateFocalLengthAttr(focal)
    camera.CreateHorizontalApertureAttr(_FILM_WIDTH)
    camera.CreateVerticalApertureAttr(film_height)
    camera.CreateHorizontalApertureOffsetAttr((0.5 - intrinsics.cx / intrinsics.width) * _FILM_WIDTH)
    camera.CreateVerticalApertureOffsetAttr((intrinsics.cy / intrinsics.height - 0.5) * film_height)
    camera.CreateClippingRangeAttr(_CLIPPING_METRES)
    # A camera has no picture size of its own, and whoever renders over the clip needs it.
    for name, value in (("imageWidth", intrinsics.width), ("imageHeight", intrinsics.height)):
        attribute = camera.GetPrim().CreateAttribute(f"userProperties:{name}", Sdf.ValueTypeNames.Int)
        attribute.Set(value)


def _save(stage: Any, path: Path, package: Path) -> None:
    """Write the stage and its package.

    Raises:
        OutputError: a file cannot be written.
    """
    try:
        is_saved = stage.GetRootLayer().Export(str(path))
        is_saved = is_saved and UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(path)), str(package))
    except Tf.ErrorException as error:
        reason = " ".join(str(error).split())
        raise OutputError(f"{path}: cannot be written ({reason}); free some space or choose another folder") from error
    if not is_saved:
        raise OutputError(f"{path}: cannot be written; free some space or choose another folder")


def _notes(job: ExportJob, clock: Clock, wide: list[int]) -> tuple[str, ...]:
    """Say what was hidden and left out, how time is counted, and whose (``wide``) weights are not from 0 to 1."""
    notes = []
    for person in job.people:
        lost = int((~job.track.is_tracked[person]).sum())
        if lost:
            notes.append(f"Person_{person} is invisible in {lost} of {len(job.track)} frames, where it is lost.")
    unseen = sorted(set(range(job.track.num_people)) - set(job.people))
    if unseen:
        notes.append(f"never tracked and left out: {', '.join(f'person {person}' for person in unseen)}.")
    if not clock.is_constant:
        notes.append(f"the frame rate varies: time codes follow the timestamps, {clock.rate:g} a second.")
    if job.texture_note is not None:
        notes.append(job.texture_note)
    if wide:
        people = ", ".join(f"Person_{person}" for person in wide)
        notes.append(f"{people}: blend shape weights leave 0 to 1; Blender needs shape keys' ranges widened to follow.")
    return tuple(notes)
