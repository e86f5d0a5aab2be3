"""Materials of drawn heads."""

CLAY = (0.80, 0.755, 0.715)
"""The default material: a neutral, slightly warm clay (sRGB)."""

PERSON_COLORS = (
    CLAY,
    (0.52, 0.72, 0.78),
    (0.86, 0.67, 0.46),
    (0.69, 0.64, 0.82),
    (0.62, 0.76, 0.58),
    (0.84, 0.60, 0.62),
)
"""Materials that tell several people apart (sRGB); take them in turn."""
