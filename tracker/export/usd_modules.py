"""The modules of OpenUSD (usd-core) that the usd export uses; a plain sentence where they are not installed.

They fill themselves from compiled code when they are imported, so type checkers see nothing in them: hence ``Any``.
"""

from __future__ import annotations

import importlib
from typing import Any

from flame.errors import InputError


def _module(name: str) -> Any:
    """Import one module of OpenUSD.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(f"pxr.{name}")
    except ImportError as error:
        raise InputError(f"the usd export needs OpenUSD ({error}); install it: pip install usd-core.") from error


Gf: Any = _module("Gf")
Sdf: Any = _module("Sdf")
Tf: Any = _module("Tf")
Usd: Any = _module("Usd")
UsdGeom: Any = _module("UsdGeom")
UsdShade: Any = _module("UsdShade")
UsdSkel: Any = _module("UsdSkel")
UsdUtils: Any = _module("UsdUtils")
Vt: Any = _module("Vt")
