"""One person of a USD stage: mesh, skeleton, blend shapes, their animation, and the material."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from flame.camera import OPENGL_AXES
from flame.shading import CLAY, vertex_normals
from tracker.export.glb_mesh import light_from_srgb
from tracker.export.rig import HeadMotion, RiggedHead, unbroken_quaternions
from tracker.export.usd_modules import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdSkel, Vt

_WORLD_FROM_CAM = np.diag((*OPENGL_AXES, 1.0))
_UNMOVED_METRES = 1e-7
_UNTURNED = 1e-4
"""Changes of position and of unit normals below these are left out of blend shapes."""
_ROUGHNESS = 0.6
_BATCH = 32
"""Frames that are posed at once."""


def add_person(
    stage: Any,
    path: str,
    rig: RiggedHead,
    motion: HeadMotion,
    codes: np.ndarray,
    colors: np.ndarray,
    picture: str | None,
) -> None:
    """Add a person to a stage.

    Args:
        stage: where to.
        path: path of the person's prim.
        rig: the person's head.
        motion: its motion over T frames.
        codes: time codes of the frames, float64 (T,), ascending.
        colors: sRGB colours of the vertices (V, 3), seen where there is no texture.
        picture: texture file, relative to the stage's folder, or None.
    """
    world_from_joint = _WORLD_FROM_CAM @ motion.cam_from_joint
    root = UsdSkel.Root.Define(stage, path)
    Usd.ModelAPI(root).SetKind("component")
    _add_visibility(root, motion.is_tracked, codes)
    bounds = _bounds(rig, motion, world_from_joint)
    _animate(root.CreateExtentAttr(), (Vt.Vec3fArray.FromNumpy(bound) for bound in bounds), codes)
    joints = _joint_paths(rig)
    shapes = identifiers(rig.morph_names)
    skeleton = _add_skeleton(stage, f"{path}/Skeleton", rig, joints)
    animation = _add_animation(stage, f"{path}/Skeleton/Animation", joints, shapes)
    locals_ = motion.parent_from_joint(rig.joint_parents)
    locals_ = np.where(np.array(rig.joint_parents)[:, None, None] < 0, _WORLD_FROM_CAM @ locals_, locals_)
    _animate_joints(animation, locals_, codes)
    UsdSkel.BindingAPI(skeleton).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    mesh = _add_mesh(stage, f"{path}/Head", rig, colors)
    _bind_skin(mesh, rig, skeleton)
    if shapes:
        weights = (Vt.FloatArray.FromNumpy(row) for row in np.ascontiguousarray(motion.morph_weights, np.float32))
        _animate(animation.CreateBlendShapeWeightsAttr(), weights, codes)
        _add_shapes(mesh, rig, shapes)
    _add_material(mesh, f"{path}/Material", picture)


def identifiers(names: Iterable[str]) -> list[str]:
    """Return names as prim names: letters, digits and underscores, no digit first, no two the same."""
    found: dict[str, None] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        plain = plain if plain and not plain[0].isdigit() else f"_{plain}"
        unique, copies = plain, 1
        while unique in found:
            copies += 1
            unique = f"{plain}_{copies}"
        found[unique] = None
    return list(found)


def _joint_paths(rig: RiggedHead) -> list[str]:
    """Return each joint's name after its ancestors' names, as ``root/neck/jaw``."""
    paths: list[str] = []
    for name, parent in zip(rig.joint_names, rig.joint_parents, strict=True):
        paths.append(name if parent < 0 else f"{paths[parent]}/{name}")
    return paths


def _animate(attribute: Any, values: Iterable[Any], codes: np.ndarray) -> None:
    """Write one value a frame, and the first as what holds where no time is asked for."""
    for position, (value, code) in enumerate(zip(values, codes, strict=True)):
        if position == 0:
            attribute.Set(value)
        attribute.Set(value, float(code))


def _add_visibility(root: Any, is_tracked: np.ndarray, codes: np.ndarray) -> None:
    """Hide a person where they are lost: a sample at the first frame and at each change."""
    attribute = root.CreateVisibilityAttr(UsdGeom.Tokens.inherited)
    if is_tracked.all():
        return
    changes = np.flatnonzero(np.diff(is_tracked, prepend=~is_tracked[:1]))
    for frame in changes:
        token = UsdGeom.Tokens.inherited if is_tracked[frame] else UsdGeom.Tokens.invisible
        attribute.Set(token, float(codes[frame]))


def _add_skeleton(stage: Any, path: str, rig: RiggedHead, joints: list[str]) -> Any:
    """Add the five joints, bound where they are in the neutral head."""
    skeleton = UsdSkel.Skeleton.Define(stage, path)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim())
    skeleton.CreateJointsAttr(joints)
    parents = np.array(rig.joint_parents)
    from_parent = rig.rest_joints - np.where(parents[:, None] < 0, 0.0, rig.rest_joints[parents])
    skeleton.CreateBindTransformsAttr([Gf.Matrix4d(1.0).SetTranslate(at.tolist()) for at in rig.rest_joints])
    skeleton.CreateRestTransformsAttr([Gf.Matrix4d(1.0).SetTranslate(at.tolist()) for at in from_parent])
    return skeleton


def _add_animation(stage: Any, path: str, joints: list[str], shapes: list[str]) -> Any:
    """Add an animation of all joints and blend shapes, without their values."""
    animation = UsdSkel.Animation.Define(stage, path)
    animation.CreateJointsAttr(joints)
    if shapes:
        animation.CreateBlendShapesAttr(shapes)
    return animation


def _animate_joints(animation: Any, parent_from_joint: np.ndarray, codes: np.ndarray) -> None:
    """Write rotation and place of the joints in every frame, float64 (T, 5, 4, 4); they are never scaled."""
    places = np.ascontiguousarray(parent_from_joint[..., :3, 3], np.float32)
    _animate(animation.CreateTranslationsAttr(), (Vt.Vec3fArray.FromNumpy(each) for each in places), codes)
    turns = unbroken_quaternions(parent_from_joint[..., :3, :3])
    _animate(animation.CreateRotationsAttr(), (_quaternions(each) for each in turns.tolist()), codes)
    animation.CreateScalesAttr(Vt.Vec3hArray(turns.shape[1], Gf.Vec3h(1.0)))


def _quaternions(turns: Sequence[Sequence[float]]) -> Any:
    """Return quaternions (x, y, z, w) as USD holds them."""
    return Vt.QuatfArray([Gf.Quatf(w, x, y, z) for x, y, z, w in turns])


def _add_mesh(stage: Any, path: str, rig: RiggedHead, colors: np.ndarray) -> Any:
    """Add the neutral head in head space, in the head model's order of vertices."""
    mesh = UsdGeom.Mesh.Define(stage, path)
    points = np.ascontiguousarray(rig.rest_vertices, np.float32)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray(len(rig.faces), 3))
    mesh.CreateFaceVertexIndicesAttr(_ints(rig.faces))
    mesh.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack((points.min(axis=0), points.max(axis=0)))))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    # The neck ends in a hole and the mouth opens into one: their inside is seen too.
    mesh.CreateDoubleSidedAttr(True)
    mesh.CreateNormalsAttr(_vectors(vertex_normals(rig.rest_vertices, rig.faces)))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    painted = mesh.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex)
    painted.Set(_vectors(light_from_srgb(colors)))
    if rig.uv is not None and rig.uv_faces is not None:
        names = Sdf.ValueTypeNames
        st = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", names.TexCoord2fArray, UsdGeom.Tokens.faceVarying)
        st.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(rig.uv, np.float32)))
        st.SetIndices(_ints(rig.uv_faces))
    return mesh


def _bind_skin(mesh: Any, rig: RiggedHead, skeleton: Any) -> None:
    """Bind the mesh to the skeleton, with the strongest joint of each vertex first."""
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateGeomBindTransformAttr(Gf.Matrix4d(1.0))
    most = int((rig.skin_weights != 0).sum(axis=1).max())
    order = np.argsort(-np.abs(rig.skin_weights), axis=1, kind="stable")[:, :most]
    weights = np.take_along_axis(rig.skin_weights, order, axis=1)
    order = np.where(weights != 0, order, 0)
    binding.CreateJointIndicesPrimvar(False, most).Set(_ints(order))
    flat = np.ascontiguousarray(weights.ravel(), np.float32)
    binding.CreateJointWeightsPrimvar(False, most).Set(Vt.FloatArray.FromNumpy(flat))


def _add_shapes(mesh: Any, rig: RiggedHead, names: list[str]) -> None:
    """Add blend shapes below the mesh, each with the vertices alone that it moves or turns."""
    stage = mesh.GetPrim().GetStage()
    normals = vertex_normals(rig.rest_vertices, rig.faces)
    paths = []
    for name, deltas in zip(names, rig.morph_deltas, strict=True):
        turned = vertex_normals(rig.rest_vertices + deltas, rig.faces) - normals
        moves = (np.abs(deltas).max(axis=1) > _UNMOVED_METRES) | (np.abs(turned).max(axis=1) > _UNTURNED)
        shape = UsdSkel.BlendShape.Define(stage, mesh.GetPath().AppendChild(name))
        shape.CreateOffsetsAttr(_vectors(deltas[moves]))
        shape.CreateNormalOffsetsAttr(_vectors(turned[moves]))
        shape.CreatePointIndicesAttr(_ints(np.flatnonzero(moves)))
        paths.append(shape.GetPath())
    binding = UsdSkel.BindingAPI(mesh)
    binding.CreateBlendShapesAttr(names)
    binding.CreateBlendShapeTargetsRel().SetTargets(paths)


def _add_material(mesh: Any, path: str, picture: str | None) -> None:
    """Add a UsdPreviewSurface of the texture, or of the vertices' colours, and bind it to the mesh."""
    stage, types = mesh.GetPrim().GetStage(), Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, path)
    surface = _shader(stage, f"{path}/Surface", "UsdPreviewSurface")
    surface.CreateInput("roughness", types.Float).Set(_ROUGHNESS)
    surface.CreateInput("metallic", types.Float).Set(0.0)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    if picture is None:
        reader = _shader(stage, f"{path}/Colors", "UsdPrimvarReader_float3")
        reader.CreateInput("varname", types.String).Set("displayColor")
        # What programs show that do not read colours of vertices.
        reader.CreateInput("fallback", types.Float3).Set(Gf.Vec3f(*light_from_srgb(np.array(CLAY)).tolist()))
        color = reader.CreateOutput("result", types.Float3)
    else:
        reader = _shader(stage, f"{path}/Coordinates", "UsdPrimvarReader_float2")
        reader.CreateInput("varname", types.String).Set("st")
        texture = _shader(stage, f"{path}/Texture", "UsdUVTexture")
        texture.CreateInput("file", types.Asset).Set(f"./{picture}")
        texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
        for wrap in ("wrapS", "wrapT"):
            texture.CreateInput(wrap, types.Token).Set("clamp")
        texture.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
        color = texture.CreateOutput("rgb", types.Float3)
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(color)
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)


def _shader(stage: Any, path: str, name: str) -> Any:
    """Add a shader of a known kind."""
    shader = UsdShade.Shader.Define(stage, path)
    shader.CreateIdAttr(name)
    return shader


def _bounds(rig: RiggedHead, motion: HeadMotion, world_from_joint: np.ndarray) -> np.ndarray:
    """Return the least and greatest corner of the posed head in every frame, float32 (T, 2, 3), metres, world."""
    frames, shown = np.unique(motion.shown_frame, return_inverse=True)
    # Coordinates before vertices: the least of each row is found many times faster than that of each column.
    weights = np.ascontiguousarray(rig.skin_weights.T, np.float32)
    rest = rig.rest_vertices.T.astype(np.float32)
    deltas = rig.morph_deltas.transpose(0, 2, 1).reshape(len(rig.morph_deltas), rest.size)
    corners = np.zeros((len(frames), 2, 3), np.float32)
    for start in range(0, len(frames), _BATCH):
        batch = frames[start : start + _BATCH]
        morphed = rest + (motion.morph_weights[batch] @ deltas).reshape(len(batch), *rest.shape)
        moved = world_from_joint[batch, :, :3].copy()
        moved[..., 3] -= np.einsum("tjrc,jc->tjr", moved[..., :3], rig.rest_joints)
        by_joint = moved.astype(np.float32).transpose(0, 2, 3, 1).reshape(-1, len(weights))
        blended = (by_joint @ weights).reshape(len(batch), 3, 4, -1)
        posed = (blended[:, :, :3] * morphed[:, None]).sum(axis=2) + blended[:, :, 3]
        corners[start : start + _BATCH] = np.stack((posed.min(axis=-1), posed.max(axis=-1)), axis=1)
    return corners[shown]


def _ints(values: np.ndarray) -> Any:
    """Return whole numbers of any shape as one row."""
    return Vt.IntArray.FromNumpy(np.ascontiguousarray(values.ravel(), np.int32))


def _vectors(values: np.ndarray) -> Any:
    """Return vectors (N, 3)."""
    return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(values, np.float32))
