"""Errors that a user can cause; command lines print them as one line and exit with status 2."""

from __future__ import annotations


class UserError(Exception):
    """Say in one line what is wrong, what was found, what is allowed and what to do."""


class InputError(UserError, ValueError):
    """A file or value from the user cannot be used as it is."""


class AssetMissingError(UserError, FileNotFoundError):
    """A file that the user named, or that an option needs, is not there."""


class UnsafeFileError(UserError, ValueError):
    """A file from outside asks to run code when read; it is refused."""
