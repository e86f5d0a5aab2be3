"""Errors of the tracker that a user can cause, besides those of `flame.errors`."""

from __future__ import annotations

from flame.errors import UserError


class OutputError(UserError, OSError):
    """A result cannot be written: no permission, no such folder, a full disk."""
