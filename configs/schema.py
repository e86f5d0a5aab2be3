"""Configuration of the tracker: frozen dataclasses, every field with its unit; nothing changes during a run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SolverConfig:
    """Set how a frame is solved."""

    max_iterations: int = 12
    """Levenberg-Marquardt iterations of a frame that starts cold."""
    max_iterations_warm: int = 5
    """Levenberg-Marquardt iterations of a frame that starts from the one before."""
    tolerance: float = 1e-2
    """Stop when an iteration lowers the energy by less than this share of it."""
    robust_width: float = 3.0
    """Distance, in standard deviations, from which a correspondence loses influence (Cauchy)."""
    sigma_scale: float = 1.0
    """Factor on the evidence's standard deviations."""


@dataclass(frozen=True)
class RegularizationConfig:
    """Set the standard deviations of what a face is expected to do; smaller is stiffer."""

    expression: float = 0.8
    """Expression coefficients (1 is the full action)."""
    jaw_open_rad: float = 0.35
    """Jaw rotation about the ear axis, radians."""
    jaw_side_rad: float = 0.06
    """Jaw rotation about the vertical axis, radians."""
    eye_rad: float = 0.25
    """Eye rotations up, down and sideways, radians."""
    neck_rad: float = 0.05
    """Neck rotation, radians; one camera cannot tell neck from head, so it stays near zero."""
    locked_rad: float = 0.01
    """Rotations that anatomy hardly allows (jaw roll, eye roll), radians."""
    identity: float = 0.2
    """Identity coefficients, in the head model's own standard deviations; far below 1, because hundreds of landmarks in
    a dozen frames err together and would otherwise speak with one detector's habits as if they were many witnesses."""
    log_focal: float = 0.05
    """Logarithm of the focal length around its expected value."""
    default_fov_degrees: float = 45.0
    """Field of view along the longer image side that is expected when nothing else is known."""
    change_per_second: float = 6.0
    """Change of expressions (full actions) and joint angles (in their own standard deviations) within a second."""


@dataclass(frozen=True)
class ScoutConfig:
    """Set how identity and focal length are found before the clip is streamed."""

    candidates: int = 12
    """Frames looked at, spread over the clip; short clips are looked at in fewer."""
    frames_per_candidate: int = 8
    """At most one frame in so many is looked at."""
    keyframes: int = 10
    """Frames used in the joint solve, chosen for spread over pose and expression."""
    iterations: int = 12
    """Levenberg-Marquardt iterations of the joint solve."""
    observable_mm: float = 0.1
    """Identity directions that move the evidence by less than this are left at their mean."""


@dataclass(frozen=True)
class StatusConfig:
    """Set when a face counts as seen."""

    min_presence: float = 0.5
    """Below this probability of a face, the frame's face is lost."""
    low_presence: float = 0.8
    """Below this probability of a face, the frame is low_confidence."""
    min_visibility: float = 0.5
    """Below this visible share, the frame is low_confidence."""
    max_residual_percent: float = 5.0
    """Above this median residual, in percent of the interocular distance, the frame is low_confidence."""
    glance_seconds: float = 0.1
    """Look for missing people this often where they are easily seen."""
    search_seconds: float = 0.5
    """Look for missing people thoroughly this often, more rarely while in vain; at once when a face was just lost."""


@dataclass(frozen=True)
class SmoothingConfig:
    """Set the temporal smoothing of the streamed parameters: local quadratic fits, so peaks keep their height."""

    half_width_seconds: float = 0.1
    """Half width of the window; 0 switches smoothing off."""
    max_lag_frames: int = 8
    """Frames that are held back at most, whatever the frame rate."""


@dataclass(frozen=True)
class OverlayConfig:
    """Set the overlay video."""

    opacity: float = 0.75
    """Opacity of the mesh over the original."""


@dataclass(frozen=True)
class Config:
    """Hold everything that a run depends on besides its input."""

    solver: SolverConfig = field(default_factory=SolverConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    scout: ScoutConfig = field(default_factory=ScoutConfig)
    status: StatusConfig = field(default_factory=StatusConfig)
    smoothing: SmoothingConfig = field(default_factory=SmoothingConfig)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
