"""ARKit curves as CSV, in the columns of Epic's Live Link Face app; one file per person.

Read by Unreal's importer "LiveLinkFaceImporter", Blender add-ons, Maya and Unity plug-ins. What is written follows
recordings of the app, Epic's documentation ("Recording Facial Animation from an iOS Device") and its importer
(``LiveLinkFaceImporterFactory.cpp``):

- Columns: ``Timecode``, ``BlendshapeCount`` (61; older recordings have a capital S, the importer ignores case), the 52
  coefficients with a capital first letter in the app's order (right before left for jaw and mouth), then yaw, pitch and
  roll of head, left and right eye.
- Timecode ``HH:MM:SS:FF.mmm``: FF counts sixtieths of a second whatever the clip's rate (the importer divides by 60,
  and a 30 Hz recording of the app steps by 2), mmm thousandths of one. So clips of any and of varying rate keep their
  times, to 17 microseconds. 00:00:00:00.000 is the start of the clip.
- Coefficients lie in [0, 1], as ARKit's do ("ARFaceAnchor.BlendShapeLocation"); what is larger is cut off, and told.
- Frames without a face have no row; the gap is in the timecode. The importer stops at rows with empty cells, and the
  app sends no coefficients while it sees no face.
- Angles are radians, left and right those of the person. Head, relative to a camera that it faces: yaw > 0 turns to the
  person's left, pitch > 0 up, roll > 0 tilts to the person's right. Eyes, relative to the head: yaw > 0 turns to the
  person's *right*, pitch > 0 *down*. That eyes go the other way round than the head is how the app records them: in
  its recordings LookOutLeft comes with a negative LeftEyeYaw and LookDown with a positive pitch, while programs that
  move characters live from its packets (and those that send such packets, such as MeFaMo) take HeadPitch > 0 as up and
  HeadYaw > 0 as left. A rotation is taken apart as ``Rx Ry Rz``, the order that the recordings obey: a gaze without
  torsion has tan(roll) = tan(pitch) sin(yaw) in them.

Heads without ARKit actions, such as FLAME, are converted to the commons head first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame.arkit import ARKIT_NAMES
from flame.camera import OPENGL_AXES
from flame.model import HeadModel
from flame.rotation import matrix_from_axis_angle
from tracker.export.job import ExportJob, Written
from tracker.result import Track

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_LEFT_RIGHT = ("MouthSmile", "MouthFrown", "MouthDimple", "MouthStretch")

COEFFICIENTS: tuple[str, ...] = (
    *(f"Eye{action}{side}" for side in ("Left", "Right") for action in _EYE),
    *("JawForward", "JawRight", "JawLeft", "JawOpen"),
    *("MouthClose", "MouthFunnel", "MouthPucker", "MouthRight", "MouthLeft"),
    *(f"{action}{side}" for action in _LEFT_RIGHT for side in ("Left", "Right")),
    *("MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper"),
    *(f"Mouth{action}{side}" for action in ("Press", "LowerDown", "UpperUp") for side in ("Left", "Right")),
    *("BrowDownLeft", "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight"),
    *("CheekPuff", "CheekSquintLeft", "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight", "TongueOut"),
)
"""The 52 coefficients in the app's order."""

ANGLES: tuple[str, ...] = tuple(
    f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll")
)
"""The nine angles in the app's order, radians."""

COLUMNS: tuple[str, ...] = ("Timecode", "BlendshapeCount", *COEFFICIENTS, *ANGLES)
"""The header of the file."""

TIMECODE_RATE = 60
"""Frames per second in which timecodes count, whatever the clip's rate."""

_CUT_TOLD = 0.01
"""Coefficients are told to have been cut off where they exceed 1 by more."""

_VIEWER_FROM_CAM = np.diag(OPENGL_AXES)


def write(job: ExportJob) -> Written:
    """Write a CSV file per person: ``arkit.csv``, or ``person_0.csv`` and so on.

    Raises:
        UserError: the head has no ARKit actions and cannot be converted.
    """
    track, notes = _with_actions(job)
    paths = []
    for person in job.people:
        name = "arkit" if track.num_people == 1 else f"person_{person}"
        paths.append(job.folder / f"{name}.csv")
        notes += _write_person(paths[-1], track, person)
    return Written(tuple(paths), tuple(notes))


def _with_actions(job: ExportJob) -> tuple[Track, list[str]]:
    """Return the track on a head that has ARKit actions, and a note for each person where it was converted."""
    track = job.track
    if has_actions(track.head_model):
        return track, []
    from flame import load_head
    from tracker.conversion import convert_track

    conversion = convert_track(track, load_head("commons"), show_frames=job.show_steps)
    notes = []
    for person, errors in enumerate(conversion.error_mm):
        if np.isfinite(errors).any():
            size = f"{np.nanmean(errors):.2f} mm in the mean, {np.nanmax(errors):.2f} mm in the worst frame"
            notes.append(f"person {person}: converted to the commons head, surface error {size}")
    return conversion.track, notes


def has_actions(model: HeadModel) -> bool:
    """Tell whether a head has all 52 ARKit actions."""
    known = {*(model.expression_names or ()), *(action.name for action in model.joint_actions)}
    return known.issuperset(ARKIT_NAMES)


def _write_person(path: Path, track: Track, person: int) -> list[str]:
    """Write the file of one person; return what there is to tell."""
    values = coefficients(track, person)
    angles = np.concatenate((head_angles(track, person), *(eye_angles(track, person, side) for side in (0, 1))), axis=1)
    first = min(0.0, float(track.pts_seconds.min()))
    tracked = np.flatnonzero(track.is_tracked[person])
    count = str(len(COEFFICIENTS) + len(ANGLES))
    with path.open("w", encoding="ascii", newline="\n") as stream:
        stream.write(",".join(COLUMNS) + "\n")
        for frame in tracked:
            numbers = (*np.clip(values[frame], 0.0, 1.0), *angles[frame])
            time = timecode(track.pts_seconds[frame] - first)
            stream.write(",".join((time, count, *(f"{number:.10f}" for number in numbers))) + "\n")
    notes = []
    if len(tracked) < len(track):
        notes.append(f"person {person}: {len(track) - len(tracked)} frames without a face have no row")
    cut = (values[tracked] > 1 + _CUT_TOLD).any(axis=0)
    if cut.any():
        names = ", ".join(np.array(COEFFICIENTS)[cut])
        notes.append(f"person {person}: cut off at 1, the largest that the format holds: {names}")
    return notes


def coefficients(track: Track, person: int) -> np.ndarray:
    """Return one person's coefficients in the app's order, float64 (T, 52); NaN where not tracked, nothing cut off."""
    by_name = {name.lower(): values for name, values in track.arkit(person).items()}
    return np.stack([by_name[name.lower()] for name in COEFFICIENTS], axis=1)


def head_angles(track: Track, person: int) -> np.ndarray:
    """Return yaw, pitch and roll of the face before the camera, float64 (T, 3), radians; NaN where not tracked."""
    cam_from_face = matrix_from_axis_angle(track.rotation[person]) @ matrix_from_axis_angle(
        track.neck[person].astype(np.float64)
    )
    about_x, about_y, about_z = _angles_xyz(_VIEWER_FROM_CAM @ cam_from_face)
    return np.stack((about_y, -about_x, about_z), axis=1)


def eye_angles(track: Track, person: int, side: int) -> np.ndarray:
    """Return yaw, pitch and roll of an eye (0: left) in the head, float64 (T, 3), radians; NaN where not tracked."""
    turns = (track.left_eye, track.right_eye)[side][person].astype(np.float64)
    about_x, about_y, about_z = _angles_xyz(matrix_from_axis_angle(turns))
    return np.stack((-about_y, about_x, about_z), axis=1)


def _angles_xyz(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b and c (T,) of rotations (T, 3, 3) that are Rx(a) Ry(b) Rz(c); b lies within a quarter turn."""
    about_x = np.arctan2(-rotations[:, 1, 2], rotations[:, 2, 2])
    about_y = np.arctan2(rotations[:, 0, 2], np.hypot(rotations[:, 0, 0], rotations[:, 0, 1]))
    about_z = np.arctan2(-rotations[:, 0, 1], rotations[:, 0, 0])
    return about_x, about_y, about_z


def timecode(seconds: float) -> str:
    """Return a time as ``HH:MM:SS:FF.mmm``: sixtieths of a second, and their thousandths."""
    sixtieths, thousandths = divmod(round(seconds * TIMECODE_RATE * 1000), 1000)
    whole_seconds, frame = divmod(sixtieths, TIMECODE_RATE)
    minutes, second = divmod(whole_seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}:{frame:02d}.{thousandths:03d}"
