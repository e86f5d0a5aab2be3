"""Configuration of the tracker: frozen dataclasses, every field with its unit; nothing changes during a run."""

from __future__ import annotations

from dataclasses import dataclass, field

SMOOTHING_METHODS = ("window", "quadratic")
"""Values of ``smoothing.method``."""


@dataclass(frozen=True)
class SolverConfig:
    """Set how a frame is solved."""

    evidence: str = "landmarks"
    """``landmarks``: the prior's correspondences; ``dense``: its texture and normal maps, with ``energy``;
    ``dense-identity``: maps for who somebody is, landmarks for what the face does."""
    method: str = "levenberg-marquardt"
    """``levenberg-marquardt``, or the reference ``adam`` for dense evidence."""
    dense_px: int = 256
    """Side length of the dense maps of a face, pixels."""
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

    expression: float = 0.3
    """Expression coefficients that go one way (1 is the full action); larger, and identity leaks into them."""
    lid: float = 0.8
    """The same of the lids, whose name begins with ``eye``: they are often at the full action, as in a blink."""
    free_expression: float = 0.8
    """Expression coefficients without bounds, in the head model's own standard deviations."""
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
    a dozen frames err together and would otherwise speak with one detector's habits as if they were many witnesses.
    Around an identity that the landmarks suggest by themselves, N keyframes count as the root of N."""
    log_focal: float = 0.05
    """Logarithm of the focal length around its expected value."""
    principal_point: float = 0.0
    """Offset of the principal point from where it is expected, share of the longer image side; 0 holds it there."""
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
    """Set the temporal smoothing of the streamed parameters.

    The changes of method ``window`` are tuned together with the evidence's standard deviations, which take landmarks
    for independent witnesses: smaller than what faces really do.
    """

    method: str = "window"
    """``window``: neighbouring frames are solved together, each by what its evidence says; ``quadratic``: local
    quadratic fits to each parameter by itself."""
    half_width_seconds: float = 0.1
    """Half width of the quadratic fits' window; 0 switches smoothing off, whatever the method."""
    max_lag_frames: int = 8
    """Frames that are held back at most, whatever the frame rate."""
    turn_change: float = 0.2
    """Method window: change of the head's angular velocity within a second, radians/second."""
    move_change: float = 0.01
    """Method window: change of the head's velocity within a second, metres/second."""
    jaw_change: float = 0.08
    """Method window: change of the jaw's angles within a second, in their own standard deviations."""
    expression_change: float = 0.1
    """Method window: change of expressions within a second, in their own standard deviations."""
    lid_change: float = 0.4
    """Method window: the same of eyes and lids, which are quicker (expressions whose name begins with ``eye``)."""


@dataclass(frozen=True)
class OverlayConfig:
    """Set the overlay video."""

    opacity: float = 0.75
    """Opacity of the mesh over the original."""


@dataclass(frozen=True)
class SmoothnessConfig:
    """Weight the change of a frame's parameters since the frame before, at 30 frames/s; longer gaps weigh less."""

    expression: float = 0.0
    """Expression coefficients, squared difference."""
    eyes: float = 0.0
    """Axis-angle of both eyes, squared difference, radians squared."""
    jaw: float = 0.0
    """Axis-angle of the jaw, squared difference, radians squared."""
    neck: float = 0.0
    """Axis-angle of the neck, squared difference, radians squared."""
    rotation: float = 0.0
    """Rotation of the head, squared angle, radians squared."""
    translation: float = 0.0
    """Translation of the head, squared difference, metres squared."""


@dataclass(frozen=True)
class EnergyConfig:
    """Weight the terms of the dense energy; 0 switches a term off.

    Image distances are shares of the longer side of the maps. The defaults are the paper's (arXiv 2505.00615).
    """

    uv: float = 2000.0
    """Mean distance of projected vertices from where the texture map shows them."""
    uv_max_distance: float = 0.00707
    """Distance in texture space up to which a map's pixel counts as showing a vertex (the paper's delta_uv)."""
    uv_cap: float = 0.0
    """Distance from which a vertex, or a hidden one, costs no more; 0 means no cap."""
    uv_pixel: float = 0.0
    """Mean difference of rendered and predicted texture coordinates over the pixels."""
    uv_is_subpixel: bool = False
    """Place lookups between pixels instead of at the nearest pixel's centre."""
    normal: float = 200.0
    """Mean L1 difference of rendered and predicted normals over the pixels."""
    normal_cap: float = 0.0
    """L1 difference from which a pixel costs no more; 0 means no cap."""
    silhouette: float = 0.0
    """Mean distance of the head's outline from the boundary of the foreground, times its length."""
    landmarks: float = 0.0
    """Mean squared distance of landmarks."""
    correspondences: float = 0.0
    """Mean robust cost (Cauchy) of where all the prior's surface points are seen, in its standard deviations."""
    correspondence_width: float = 3.0
    """Distance, in standard deviations, from which a surface point loses influence."""
    eye_closure: float = 0.0
    """Mean squared error of the vectors from lower to upper lids."""
    iris: float = 0.0
    """Mean squared distance of the irises' centres."""
    identity: float = 0.15
    """Squared identity coefficients, relative to the anchor."""
    identity_zero: float = 0.0
    """Squared identity coefficients, relative to the mean head."""
    expression: float = 0.01
    """Squared expression coefficients."""
    jaw: float = 0.0
    """Squared axis-angle of the jaw, radians squared."""
    neck: float = 0.0
    """Squared axis-angle of the neck, radians squared."""
    eyes: float = 0.0
    """Squared axis-angles of the eyes, radians squared."""
    eye_symmetry: float = 0.0
    """Squared difference between the axis-angles of the two eyes, radians squared."""
    mirror: float = 0.0
    """Mean squared distance of the neutral head from its reflection, metres squared."""
    principal_point: float = 0.0
    """Squared offset of the principal point from where it is expected."""
    smoothness: SmoothnessConfig = field(default_factory=SmoothnessConfig)
    """Change since the frame before."""


@dataclass(frozen=True)
class AdamConfig:
    """Set the reference optimiser; the defaults are the paper's, for the camera those of its release."""

    steps: int = 500
    """Gradient steps."""
    identity_rate: float = 1e-3
    """Learning rate of the identity coefficients."""
    expression_rate: float = 3e-3
    """Learning rate of the expression coefficients."""
    joint_rate: float = 5e-3
    """Learning rate of the joint angles, radians."""
    rotation_rate: float = 5e-3
    """Learning rate of the head's rotation, radians."""
    translation_rate: float = 1e-3
    """Learning rate of the head's translation, metres."""
    focal_rate: float = 2e-3
    """Learning rate of the logarithmic focal length."""
    principal_point_rate: float = 1e-4
    """Learning rate of the principal point, shares of the longer side."""


@dataclass(frozen=True)
class Config:
    """Hold everything that a run depends on besides its input."""

    solver: SolverConfig = field(default_factory=SolverConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    scout: ScoutConfig = field(default_factory=ScoutConfig)
    status: StatusConfig = field(default_factory=StatusConfig)
    smoothing: SmoothingConfig = field(default_factory=SmoothingConfig)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    adam: AdamConfig = field(default_factory=AdamConfig)
