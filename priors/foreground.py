"""People before what is behind them, by the network for that in the MediaPipe wheel."""

from __future__ import annotations

import cv2
import numpy as np

from priors.tensor_graph import TensorGraph

MODEL = "selfie_segmentation/selfie_segmentation.tflite"
INPUT_PX = 256


class ForegroundSegmenter:
    """Tell people from the background in pictures of heads."""

    def __init__(self) -> None:
        """Load the network.

        Raises:
            AssetMissingError: when the installed MediaPipe wheel does not carry the network.
        """
        self._graph = TensorGraph(MODEL, INPUT_PX, 1, (0.0, 1.0))

    def __call__(self, image: np.ndarray, size_px: int | None = None) -> np.ndarray:
        """Return the probability that a pixel shows a person, float32 (size_px, size_px).

        Args:
            image: square RGB picture, uint8 (S, S, 3).
            size_px: side of the map; that of the picture when not given.
        """
        side = len(image) if size_px is None else size_px
        scaled = (
            image if len(image) == INPUT_PX else cv2.resize(image, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
        )
        share = self._graph(scaled).reshape(INPUT_PX, INPUT_PX)
        return share if side == INPUT_PX else cv2.resize(share, (side, side), interpolation=cv2.INTER_AREA)
