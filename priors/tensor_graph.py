"""Run one of the TensorFlow Lite networks that ship in the MediaPipe wheel, image in, numbers out.

MediaPipe's ready-made solutions hide the networks' scores and keep their own idea of where the face is. Here the same
calculators are wired to the bare network: the caller cuts the crop and reads the raw outputs.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flame.errors import AssetMissingError

_NOISE = re.compile(
    rb"inference_feedback_manager|absl::InitializeLog|Created TensorFlow Lite XNNPACK delegate|"
    rb"OpenGL error checking is disabled|gl_context"
)

_GRAPH = """
input_stream: "image"
output_stream: "numbers"
executor {{ name: "" type: "ApplicationThreadExecutor" }}
node {{ calculator: "TfLiteCustomOpResolverCalculator" output_side_packet: "OP_RESOLVER:op_resolver" }}
node {{
  calculator: "TensorConverterCalculator" input_stream: "IMAGE:image" output_stream: "TENSORS:input"
  options {{ [mediapipe.TensorConverterCalculatorOptions.ext] {{
    output_tensor_float_range {{ min: {low} max: {high} }} }} }} }}
node {{
  calculator: "InferenceCalculatorCpu" input_stream: "TENSORS:input" output_stream: "TENSORS:output"
  input_side_packet: "OP_RESOLVER:op_resolver"
  options {{ [mediapipe.InferenceCalculatorOptions.ext] {{
    model_path: "{model}" delegate {{ xnnpack {{ num_threads: 1 }} }} }} }} }}
node {{
  calculator: "SplitTensorVectorCalculator" input_stream: "output" {split_streams}
  options {{ [mediapipe.SplitVectorCalculatorOptions.ext] {{ {ranges} }} }} }}
{converters}
node {{ calculator: "ConcatenateFloatVectorCalculator" {joined_streams} output_stream: "numbers" }}
"""


class TensorGraph:
    """Hold one network, ready to run; threads that share it take turns."""

    def __init__(self, model: str, size_px: int, num_outputs: int, value_range: tuple[float, float]) -> None:
        """Load a network.

        Args:
            model: path below MediaPipe's ``modules`` folder.
            size_px: side length of the square image the network takes.
            num_outputs: number of output tensors.
            value_range: what the pixel values 0 and 255 are mapped to.

        Raises:
            AssetMissingError: when the installed MediaPipe wheel does not carry the network.
        """
        self.size_px = size_px
        self._turn = threading.Lock()
        with quiet_native_logs():
            # MediaPipe takes half a second to import and must not be paid for by those who only load a head.
            from mediapipe.python import packet_creator, packet_getter
            from mediapipe.python._framework_bindings import calculator_graph, image_frame

            self._create_image = packet_creator.create_image_frame
            self._get_floats = packet_getter.get_float_list
            self._image_format = image_frame.ImageFormat.SRGB
            config = _graph_config(model, num_outputs, value_range)
            self._graph = calculator_graph.CalculatorGraph(graph_config=config)
            self._numbers = np.zeros(0, np.float32)
            self._graph.observe_output_stream("numbers", self._receive, False)
            self._graph.start_run({})
            self._timestamp = 0
            self(np.zeros((size_px, size_px, 3), np.uint8))

    def _receive(self, _stream: str, packet: Any) -> None:
        self._numbers = np.array(self._get_floats(packet), dtype=np.float32)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Run the network on an RGB image, uint8 (size_px, size_px, 3); all outputs one after another, float32 (n,)."""
        packet = self._create_image(image_format=self._image_format, data=np.ascontiguousarray(image))
        with self._turn:
            self._timestamp += 1
            self._graph.add_packet_to_input_stream("image", packet.at(self._timestamp))
            self._graph.wait_until_idle()
            return self._numbers


def _graph_config(model: str, num_outputs: int, value_range: tuple[float, float]) -> str:
    """Write the graph of calculators as text."""
    path = mediapipe_modules() / model
    if not path.is_file():
        raise AssetMissingError(
            f"the network {model} is not part of the installed mediapipe package ({path.parent} has no such file); "
            "later releases ship none: install mediapipe==0.10.21"
        )
    indices = range(num_outputs)
    return _GRAPH.format(
        model=path.as_posix(),
        low=value_range[0],
        high=value_range[1],
        split_streams=" ".join(f'output_stream: "tensor_{i}"' for i in indices),
        ranges=" ".join(f"ranges {{ begin: {i} end: {i + 1} }}" for i in indices),
        converters="\n".join(
            f'node {{ calculator: "TensorsToFloatsCalculator" input_stream: "TENSORS:tensor_{i}" '
            f'output_stream: "FLOATS:floats_{i}" }}'
            for i in indices
        ),
        joined_streams=" ".join(f'input_stream: "floats_{i}"' for i in indices),
    )


def mediapipe_modules() -> Path:
    """Return the folder of the networks and graphs in the installed MediaPipe package."""
    import mediapipe

    return Path(mediapipe.__file__).parent / "modules"


@contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Hold back what native code writes to stderr, and pass on every line that is not a known harmless notice."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held_back.seek(0)
            for line in held_back:
                if not _NOISE.search(line):
                    os.write(2, line)
