"""Measure how much the fitted landmarks shake on real clips, against the detector's own, and whether they lag behind.

    python benchmarks/jitter.py [CLIP ...] [--presets NAME ...] [--set section.key=value ...]

Every clip is tracked once per preset. The fitted head's landmarks are projected into the image and compared with the
landmarks they were fitted to, which come out of MediaPipe's network frame by frame, unsmoothed. Per clip and preset:

- ``acceleration``: root mean square over landmarks and frames of the second difference in time, pixels / frame^2, of
  the detector's landmarks and of the fitted ones, and their ratio; then the ratio of the medians, which few frames of
  quick motion do not decide. True motion counts in both, so a ratio of zero would be wrong.
- ``lag``: frames by which the fitted landmarks' velocities come after the detector's (peak of their cross-correlation;
  in brackets, its place between frames). It has to be 0.
- ``residual``: median distance of fitted from detected landmarks, percent of the interocular distance.

Frames that were not followed from the one before (a cut, a loss) break the differences.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from configs import load_preset
from configs.presets import override
from configs.schema import Config
from flame.errors import UserError
from flame.surface import SurfaceRig
from tracker.api import Progress, track
from tracker.clip import Toolkit, load_toolkit
from tracker.state import FaceState, View

_MAX_LAG_FRAMES = 5


@dataclass(frozen=True)
class Stretch:
    """Hold T frames in a row in which a face was followed without a break."""

    detected_px: np.ndarray
    """Landmarks as the detector saw them, float64 (T, N, 2), pixels."""
    fitted_px: np.ndarray
    """The fitted head's landmarks, float64 (T, N, 2), pixels."""
    interocular_px: np.ndarray
    """Distance of the eyes, float64 (T,), pixels."""


@dataclass(frozen=True)
class Jitter:
    """Hold what was measured on one clip or on several."""

    num_frames: int
    detected_rms: float
    """Acceleration of the detector's landmarks, root mean square, pixels / frame^2."""
    fitted_rms: float
    """Acceleration of the fitted landmarks, root mean square, pixels / frame^2."""
    detected_median: float
    fitted_median: float
    lag_frames: int
    """Frames by which the fitted landmarks come late."""
    peak_frames: float
    """The same between frames: the vertex of a parabola through the correlation's peak."""
    residual_percent: float

    def row(self, name: str) -> str:
        """Return the figures as one line of a table."""
        return (
            f"{name:42s} {self.num_frames:6d} {self.detected_rms:9.3f} {self.fitted_rms:9.3f} "
            f"{self.fitted_rms / self.detected_rms:6.2f} {self.fitted_median / self.detected_median:8.2f} "
            f"{self.lag_frames:4d} ({self.peak_frames:+.2f}) {self.residual_percent:9.2f}"
        )


HEADER = (
    f"{'clip, preset':42s} {'frames':>6s} {'detector':>9s} {'fitted':>9s} {'ratio':>6s} {'medians':>8s} "
    f"{'lag':>12s} {'residual%':>9s}"
)


def differences(points_px: np.ndarray, order: int) -> np.ndarray:
    """Return the ``order``-th differences in time of points (T, N, 2): (T - order, N, 2), pixels / frame^order."""
    return np.diff(points_px, n=order, axis=0)


def correlations(stretches: Sequence[Stretch], max_lag: int = _MAX_LAG_FRAMES) -> np.ndarray:
    """Return the correlation of fitted velocities with those detected k frames earlier, k from -max_lag to max_lag."""
    found = []
    for lag in range(-max_lag, max_lag + 1):
        product = fitted_power = detected_power = 0.0
        for stretch in stretches:
            fitted, detected = differences(stretch.fitted_px, 1), differences(stretch.detected_px, 1)
            fitted, detected = fitted[max(lag, 0) :], detected[max(-lag, 0) :]
            length = min(len(fitted), len(detected))
            fitted, detected = fitted[:length], detected[:length]
            product += float(np.vdot(fitted, detected))
            fitted_power += float(np.vdot(fitted, fitted))
            detected_power += float(np.vdot(detected, detected))
        found.append(product / max(np.sqrt(fitted_power * detected_power), 1e-300))
    return np.array(found)


def peak(values: np.ndarray) -> tuple[int, float]:
    """Return where values, given at whole numbers around zero, are largest, and the vertex of a parabola there."""
    best = int(np.argmax(values))
    lag = best - len(values) // 2
    if not 0 < best < len(values) - 1:
        return lag, float(lag)
    before, at, after = values[best - 1 : best + 2]
    return lag, lag + 0.5 * (before - after) / min(before - 2 * at + after, -1e-300)


def measure(stretches: Sequence[Stretch]) -> Jitter:
    """Compare fitted landmarks with detected ones over stretches of at least three frames.

    Raises:
        UserError: there is no such stretch.
    """
    stretches = [stretch for stretch in stretches if len(stretch.detected_px) >= 3]
    if not stretches:
        raise UserError("no three frames in a row show a face; give a clip that does.")
    detected = np.concatenate([_accelerations(stretch.detected_px) for stretch in stretches])
    fitted = np.concatenate([_accelerations(stretch.fitted_px) for stretch in stretches])
    lag_frames, peak_frames = peak(correlations(stretches))
    percents = [
        100 * np.median(np.linalg.norm(each.fitted_px - each.detected_px, axis=2), axis=1) / each.interocular_px
        for each in stretches
    ]
    return Jitter(
        num_frames=sum(len(stretch.detected_px) for stretch in stretches),
        detected_rms=float(np.sqrt(np.mean(detected**2))),
        fitted_rms=float(np.sqrt(np.mean(fitted**2))),
        detected_median=float(np.median(detected)),
        fitted_median=float(np.median(fitted)),
        lag_frames=lag_frames,
        peak_frames=peak_frames,
        residual_percent=float(np.median(np.concatenate(percents))),
    )


def _accelerations(points_px: np.ndarray) -> np.ndarray:
    """Return the sizes of all second differences, pixels / frame^2."""
    return np.linalg.norm(differences(points_px, 2), axis=2).ravel()


def landmarks_px(rig: SurfaceRig, state: FaceState, view: View) -> np.ndarray:
    """Project a fitted head's landmarks, float64 (N, 2), pixels."""
    return view.project(state.points_cam(rig.pose(state.joint_angles, state.expression).points_head))


def stretches_of(path: Path, toolkit: Toolkit, config: Config) -> list[Stretch]:
    """Track a clip and return the stretches in which its main face was followed."""
    toolkit = replace(toolkit, model=replace(toolkit.model, config=config))
    frames: list[Progress] = []

    def keep(progress: Progress) -> None:
        # The picture would fill the memory.
        blank = np.empty((0, 0, 3), np.uint8)
        tracked = progress.frame
        frames.append(replace(progress, frame=replace(tracked, frame=replace(tracked.frame, image=blank))))

    found = track(path, toolkit=toolkit, on_frame=keep, overlay=False, config=config)
    rig, view = toolkit.model.rig.with_shape(found.identity[0].astype(np.float64)), View.of(found.intrinsics)
    return [_stretch(part, rig, view) for part in _unbroken(frames)]


def _unbroken(frames: Sequence[Progress]) -> Iterator[list[Progress]]:
    """Yield the runs of frames whose face is tracked and followed from the one before."""
    run: list[Progress] = []
    for progress in frames:
        face = progress.frame.faces[0]
        if run and not (face.state is not None and face.is_continuous):
            yield run
            run = []
        if face.state is not None:
            run.append(progress)
    if run:
        yield run


def _stretch(part: Sequence[Progress], rig: SurfaceRig, view: View) -> Stretch:
    """Collect the landmarks of an unbroken run of frames."""
    faces, seen = [each.frame.faces[0] for each in part], [each.frame.evidence[0] for each in part]
    return Stretch(
        detected_px=np.array([evidence.points_px for evidence in seen if evidence is not None]),
        fitted_px=np.array([landmarks_px(rig, face.state, view) for face in faces if face.state is not None]),
        interocular_px=np.array([face.interocular_px for face in faces]),
    )


def main() -> None:
    """Print one row per clip and preset, then one per preset over all clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", default=[Path("examples/sample.mp4")])
    parser.add_argument("--presets", nargs="+", default=["default", "raw"], metavar="NAME")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", dest="settings")
    arguments = parser.parse_args()
    configs = {name: override(load_preset(name), arguments.settings) for name in arguments.presets}
    toolkit = load_toolkit("commons", "mediapipe", next(iter(configs.values())))
    everything: dict[str, list[Stretch]] = {name: [] for name in configs}
    print(HEADER)
    for path in arguments.clips:
        for name, config in configs.items():
            try:
                stretches = stretches_of(path, toolkit, config)
                print(measure(stretches).row(f"{path.name}, {name}"), flush=True)
            except UserError as error:
                print(f"{path.name}, {name}: {error}")
                continue
            everything[name] += stretches
    for name, stretches in everything.items():
        if len(arguments.clips) > 1 and stretches:
            print(measure(stretches).row(f"all, {name}"))


if __name__ == "__main__":
    main()
