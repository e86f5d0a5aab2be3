"""The viewer: a web page with the tracked heads, the pictures, and sliders (``python -m tracker.view``)."""
