"""Heads with colours of their own (texture, normals) as binary glTF, which is how viser's page takes colours.

Written from the glTF 2.0 specification (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html) and
``KHR_materials_unlit``. viser 1.1.1 draws with the tone curve that react-three-fiber sets by default, three.js'
``ACESFilmicToneMapping`` (https://github.com/mrdoob/three.js/blob/r170/src/renderers/shaders/ShaderChunk/
tonemapping_pars_fragment.glsl.js), also where a material is unlit. A texture has to look as it does in the picture, so
colours are sent through the inverse of that curve first.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass

import numpy as np

from tracker.texture.srgb import linear_from_srgb, srgb_from_linear

_GAIN = 6.0
"""Colours are stored divided by this and multiplied back by the material: the inverse curve goes beyond 1."""
# Matrices and curve of three.js' ACESFilmicToneMapping, row by row.
_ACES_IN = np.array(((0.59719, 0.35458, 0.04823), (0.07600, 0.90834, 0.01566), (0.02840, 0.13383, 0.83777)))
_ACES_OUT = np.array(((1.60475, -0.53108, -0.07367), (-0.10208, 1.10813, -0.00605), (-0.00327, -0.07276, 1.07602)))
_EXPOSURE = 1 / 0.6
_MOST_FITTED = 0.97
_TOLERANCE = 0.02
_DARKER = (0.93, 0.86, 0.78, 0.7, 0.6)
"""Shares of a colour's light that are tried where it cannot be shown."""
_FLOAT, _UINT = 5126, 5125
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class PaintedFiles:
    """Hold a painted head as it is sent: glTF files."""

    base: bytes
    """What is there at once."""
    detail: bytes | None = None
    """What lies over it as soon as the page has unpacked it."""


def tone_mapped(linear: np.ndarray) -> np.ndarray:
    """Return what the page makes of linear light (..., 3), linear light in [0, 1]."""
    v = linear * _EXPOSURE @ _ACES_IN.T
    fitted = (v * (v + 0.0245786) - 0.000090537) / (v * (0.983729 * v + 0.4329510) + 0.238081)
    return np.clip(fitted @ _ACES_OUT.T, 0, 1)


def before_tone_mapping(srgb: np.ndarray) -> np.ndarray:
    """Return linear light (..., 3) that the page shows as ``srgb`` (..., 3) in [0, 1].

    Some bright, pure colours cannot be shown; they become darker, or if that is closer paler.
    """
    target = linear_from_srgb(np.asarray(srgb, np.float64).reshape(-1, 3))
    light = _inverse(target)
    error = _error(light, target)
    for darker in _DARKER:
        bad = np.flatnonzero(error > _TOLERANCE)
        if not len(bad):
            break
        tried = _inverse(darker * target[bad])
        tried_error = _error(tried, target[bad])
        better = tried_error < error[bad]
        light[bad[better]], error[bad[better]] = tried[better], tried_error[better]
    return light.reshape(np.shape(srgb))


def _error(light: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return how far what is shown is from the target, sRGB, root of the sum of squares (N,)."""
    return np.linalg.norm(srgb_from_linear(tone_mapped(light)) - srgb_from_linear(target), axis=-1)


def _inverse(linear: np.ndarray) -> np.ndarray:
    """Return the inverse of ``tone_mapped`` where there is one within the range that is sent."""
    fitted = np.clip(linear @ np.linalg.inv(_ACES_OUT).T, 0.0, _MOST_FITTED)
    # v (v + a) - b = fitted (v (c v + d) + e), solved for v.
    square = 1 - 0.983729 * fitted
    linear_term = 0.0245786 - 0.4329510 * fitted
    constant = -0.000090537 - 0.238081 * fitted
    v = (-linear_term + np.sqrt(np.maximum(linear_term**2 - 4 * square * constant, 0))) / (2 * square)
    return np.clip(v @ np.linalg.inv(_ACES_IN).T / _EXPOSURE, 0, _GAIN)


def encode_texture(rgb: np.ndarray, size_px: int) -> bytes:
    """Return a texture (S, S, 3) sRGB uint8 as the JPEG that a painted head carries, at most ``size_px`` wide."""
    from PIL import Image

    image = Image.fromarray(rgb)
    if len(rgb) > size_px:
        image = image.resize((size_px, size_px), Image.Resampling.BOX)
    before = before_tone_mapping(np.asarray(image) / 255.0) / _GAIN
    stream = io.BytesIO()
    stored = np.rint(255 * srgb_from_linear(before)).astype(np.uint8)
    Image.fromarray(stored).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def textured_glb(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, texture_jpeg: bytes) -> bytes:
    """Return a head that shows its texture, unlit.

    Args:
        vertices: positions, one a row of ``uv``: float32 (N, 3).
        faces: triangles (F, 3), rows of ``vertices`` and ``uv``.
        uv: texture coordinates (N, 2), origin bottom left.
        texture_jpeg: what ``encode_texture`` gave.
    """
    # glTF counts v from the top.
    turned = np.stack((uv[:, 0], 1 - uv[:, 1]), axis=1)
    return _glb(vertices, faces, "TEXCOORD_0", turned, texture_jpeg)


def coloured_glb(vertices: np.ndarray, faces: np.ndarray, light: np.ndarray) -> bytes:
    """Return a head, vertices (V, 3) and triangles (F, 3), with a colour a vertex, unlit.

    ``light`` holds the colours as ``before_tone_mapping`` gives them (V, 3).
    """
    return _glb(vertices, faces, "COLOR_0", light / _GAIN, None)


def _glb(vertices: np.ndarray, faces: np.ndarray, attribute: str, values: np.ndarray, jpeg: bytes | None) -> bytes:
    """Pack one mesh of positions, one more attribute and triangles; the JPEG is its colour."""
    vertices = np.ascontiguousarray(vertices, "<f4")
    values = np.ascontiguousarray(values, "<f4")
    parts = [vertices.tobytes(), values.tobytes(), np.ascontiguousarray(faces, "<u4").tobytes()]
    material: dict[str, object] = {
        "extensions": {"KHR_materials_unlit": {}},
        "pbrMetallicRoughness": {"baseColorFactor": [_GAIN, _GAIN, _GAIN, 1.0], "metallicFactor": 0.0},
    }
    document: dict[str, object] = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, attribute: 1}, "indices": 2, "material": 0}]}],
        "materials": [material],
        "accessors": [
            {
                **_accessor(0, _FLOAT, vertices),
                "min": vertices.min(axis=0).tolist(),
                "max": vertices.max(axis=0).tolist(),
            },
            _accessor(1, _FLOAT, values),
            {"bufferView": 2, "componentType": _UINT, "count": faces.size, "type": "SCALAR"},
        ],
    }
    if jpeg is not None:
        parts.append(jpeg)
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}  # type: ignore[index]
        document |= {
            "textures": [{"source": 0}],
            "images": [{"bufferView": len(parts) - 1, "mimeType": "image/jpeg"}],
        }
    return _packed(document, parts)


def _accessor(view: int, kind: int, values: np.ndarray) -> dict[str, object]:
    return {"bufferView": view, "componentType": kind, "count": len(values), "type": f"VEC{values.shape[1]}"}


def _packed(document: dict[str, object], parts: list[bytes]) -> bytes:
    """Join a document and the content of its buffer views into a binary glTF file."""
    views, offset = [], 0
    padded = []
    for part in parts:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(part)})
        padded.append(part + bytes(-len(part) % 4))
        offset += len(padded[-1])
    document |= {"bufferViews": views, "buffers": [{"byteLength": offset}]}
    head = json.dumps(document, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 4)
    binary = b"".join(padded)
    length = 12 + 8 + len(head) + 8 + len(binary)
    return b"".join(
        (
            struct.pack("<4sII", b"glTF", 2, length),
            struct.pack("<I4s", len(head), b"JSON"),
            head,
            struct.pack("<I4s", len(binary), b"BIN\0"),
            binary,
        )
    )
