"""The parametric head and how it is seen: model, loading and saving, topology, camera, rotations."""

from flame.errors import AssetMissingError, InputError, UnsafeFileError, UserError
from flame.loading import load_head
from flame.model import JOINT_NAMES, HeadModel, JointAction, PosedHead, ShapedHead
from flame.rotation import axis_angle_from_matrix, compose_axis_angle, left_jacobian, matrix_from_axis_angle, skew
from flame.saving import save_flame_pkl
from flame.topology import Topology, mirror_from_template

__all__ = [
    "JOINT_NAMES",
    "AssetMissingError",
    "HeadModel",
    "InputError",
    "JointAction",
    "PosedHead",
    "ShapedHead",
    "Topology",
    "UnsafeFileError",
    "UserError",
    "axis_angle_from_matrix",
    "compose_axis_angle",
    "left_jacobian",
    "load_head",
    "matrix_from_axis_angle",
    "mirror_from_template",
    "save_flame_pkl",
    "skew",
]
