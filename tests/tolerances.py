"""How closely two ways to the same number must agree, per floating-point type; lengths in metres."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """Hold an absolute and a relative tolerance."""

    atol: float
    rtol: float


TOLERANCES = {
    torch.float32: Tolerance(atol=2e-6, rtol=2e-5),
    torch.float64: Tolerance(atol=1e-13, rtol=1e-11),
}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype | None = None) -> None:
    """Compare tensors with the tolerance of ``dtype`` (their own unless given)."""
    tolerance = TOLERANCES[dtype or actual.dtype]
    torch.testing.assert_close(
        actual, expected, atol=tolerance.atol, rtol=tolerance.rtol, check_dtype=False, check_stride=False
    )
