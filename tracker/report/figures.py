"""Plots of a track as plotly figures; the page draws them with the library's own script."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracker.report.curves import Curves, runs, thinned
from tracker.status import STATUS_COLORS, FrameStatus

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from tracker.result import Track

LINE_COLORS = (
    *("#3c7dc4", "#d1662f", "#2a9d78", "#a765b5", "#b8902a"),
    *("#c8487a", "#5a6fd8", "#6d8a3a", "#8c6d5a", "#3aa6b9"),
)
PERSON_LINE_COLORS = ("#3c7dc4", "#d1662f", "#a765b5", "#c8487a", "#5a6fd8", "#3aa6b9")
"""Colours of people, none of which is a status."""
NUM_SHOWN_ACTIONS = 6
"""Actions that are drawn at once; the others can be switched on."""
MAX_POINTS = 1600
"""Points of a curve that is drawn at once."""
MAX_HIDDEN_POINTS = 800
"""Points of one that has to be switched on."""
_MAX_BANDS = 1500
_GRID = "rgba(128,132,140,0.22)"
MARGIN_LEFT, MARGIN_RIGHT = 58, 12
"""Pixels beside the plots, all the same, so that moments lie below each other and the page can place its cursor."""


@dataclass(frozen=True)
class Key:
    """Hold one entry of a legend."""

    name: str
    color: str
    trace: int
    """Number of the trace that it switches."""
    is_shown: bool
    is_switch: bool
    """Whether it can be switched at all: the bands of the status cannot."""


@dataclass(frozen=True)
class Plot:
    """Hold one plot of the page."""

    key: str
    """Its name in the page."""
    title: str
    caption: str
    """What is to be seen, for people who read and for those who listen."""
    json: str
    """The figure as plotly's JSON, safe inside a script element."""
    height_px: int
    keys: tuple[Key, ...]
    """Its legend, which the page draws: one that wraps and can be reached by keyboard."""


def timeline(track: Track, curves: Sequence[Curves]) -> Plot:
    """Return status bands and residuals of everybody."""
    from plotly.subplots import make_subplots

    num_people = track.num_people
    band_px, residual_px = 22 * num_people + 8, 104
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[band_px, residual_px], vertical_spacing=0.09)
    _add_bands(figure, track)
    for person, person_curves in enumerate(curves):
        name = f"person {person}" if num_people > 1 else "residual"
        color = PERSON_LINE_COLORS[person % len(PERSON_LINE_COLORS)]
        _add_line(figure, track, name, person_curves.residual_percent, color=color, row=2, unit=" %")
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False, zeroline=False, row=1)
    figure.update_yaxes(title_text="% of eye dist.", rangemode="tozero", row=2)
    height_px = band_px + residual_px + 60
    caption = "How far what was seen is from the head (median, percent of the eye distance). Touch a moment to see it."
    return _plot("timeline", "Status and residual", caption, figure, track, height_px)


def actions(track: Track, curves: Curves, person: int) -> Plot:
    """Return the actions of a person over time; those that move most are shown, the others can be switched on."""
    figure = _empty_figure()
    for index, (name, values) in enumerate(curves.actions.items()):
        is_shown = index < NUM_SHOWN_ACTIONS
        _add_line(figure, track, name, values, color=LINE_COLORS[index % len(LINE_COLORS)], is_shown=is_shown)
    figure.update_yaxes(title_text="coefficient")
    kind = "ARKit coefficients" if curves.is_arkit else "Expression coefficients of the head model"
    caption = f"{kind}. The {NUM_SHOWN_ACTIONS} that move most are drawn; the others can be switched on."
    return _plot(f"actions-{person}", _title("Expression", track, person), caption, figure, track, 360)


def pose(track: Track, curves: Curves, person: int) -> Plot:
    """Return a head's turn and place over time."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    turns = {"yaw": curves.yaw, "pitch": curves.pitch, "roll": curves.roll}
    places = {}
    for name, values in zip(("x, right", "y, down", "z, away"), curves.position_cm.T, strict=True):
        # The distance is large and its changes are small: lines from a common zero would all look flat.
        middle = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
        places[f"{name} (usually {middle:.1f} cm)"] = values - middle
    for index, (name, values) in enumerate(turns.items()):
        _add_line(figure, track, name, values, color=LINE_COLORS[index], row=1, unit="°")
    for index, (name, values) in enumerate(places.items()):
        _add_line(figure, track, name, values, color=LINE_COLORS[index + 3], row=2, unit=" cm")
    figure.update_yaxes(title_text="degrees", row=1)
    figure.update_yaxes(title_text="centimetres", row=2)
    caption = (
        "Where the face looks, neck included: yaw to the picture's right, pitch up, roll clockwise in the picture; and "
        "where the head is, as the distance from its usual place before the camera."
    )
    return _plot(f"pose-{person}", _title("Head pose", track, person), caption, figure, track, 360)


def jaw_and_gaze(track: Track, curves: Curves, person: int) -> Plot:
    """Return turns of jaw and eyes over time."""
    figure = _empty_figure()
    lines = {"jaw, open": curves.jaw_open, "jaw, to the left": curves.jaw_side, **curves.gaze}
    for index, (name, values) in enumerate(lines.items()):
        _add_line(figure, track, name, values, color=LINE_COLORS[index], unit="°")
    figure.update_yaxes(title_text="degrees")
    caption = "Turns of the jaw and of the eyes in the head; left is the subject's."
    return _plot(f"jaw-{person}", _title("Jaw and gaze", track, person), caption, figure, track, 260)


def _title(what: str, track: Track, person: int) -> str:
    """Return a heading that names the person where there are several."""
    return f"{what}, person {person}" if track.num_people > 1 else what


def _empty_figure() -> Figure:
    from plotly.graph_objects import Figure

    return Figure()


def _add_bands(figure: Figure, track: Track) -> None:
    """Add a band per person whose colour is the status, one trace per status, so that the legend tells the colours."""
    from plotly.graph_objects import Bar

    ends = np.append(track.pts_seconds, track.pts_seconds[-1] + _frame_seconds(track))
    starts, lengths, rows = ({status: [] for status in FrameStatus} for _ in range(3))
    for person in range(track.num_people):
        for status, first, last in _bands(track.status[person]):
            starts[status].append(ends[first])
            lengths[status].append(ends[last + 1] - ends[first])
            rows[status].append(f"person {person}" if track.num_people > 1 else "status")
    for status in FrameStatus:
        if starts[status]:
            bar = Bar(
                base=_array(starts[status]),
                x=_array(lengths[status]),
                y=rows[status],
                orientation="h",
                name=status.label.replace("_", " "),
                marker={"color": STATUS_COLORS[status], "line": {"width": 0}},
                hoverinfo="none",
            )
            figure.add_trace(bar, row=1, col=1)
    figure.update_layout(barmode="overlay", bargap=0.25)


def _bands(status: np.ndarray) -> list[tuple[FrameStatus, int, int]]:
    """Return stretches of equal status; of very many frames the worst in each piece counts."""
    step = max(1, len(status) // _MAX_BANDS)
    edges = np.arange(0, len(status), step)
    worst = np.maximum.reduceat(status, edges) if len(status) else status
    bands = []
    for each in FrameStatus:
        for first, last in runs(worst == each):
            bands.append((each, int(edges[first]), int(min(edges[last] + step, len(status)) - 1)))
    return bands


def _add_line(
    figure: Figure,
    track: Track,
    name: str,
    values: np.ndarray,
    *,
    color: str,
    row: int | None = None,
    unit: str = "",
    is_shown: bool = True,
) -> None:
    """Add a curve (T,), thinned to what can be seen."""
    from plotly.graph_objects import Scatter

    kept = thinned(values, MAX_POINTS if is_shown else MAX_HIDDEN_POINTS)
    # One known moment has no line.
    is_single = int(np.isfinite(values).sum()) < 2
    line = Scatter(
        x=_array(track.pts_seconds[kept]),
        y=_array(np.asarray(values, np.float64)[kept]),
        name=name,
        mode="markers" if is_single else "lines",
        line={"color": color, "width": 1.6},
        visible=True if is_shown else False,
        hovertemplate=f"{html.escape(name)} %{{y:.3~g}}{unit}<extra></extra>",
    )
    if row is None:
        figure.add_trace(line)
    else:
        figure.add_trace(line, row=row, col=1)


def _array(values: Any) -> np.ndarray:
    """Return numbers as plotly stores them shortest; NaN stays a gap."""
    return np.asarray(values, np.float32)


def _frame_seconds(track: Track) -> float:
    """Return how long a frame lasts, usually."""
    return float(np.median(np.diff(track.pts_seconds))) if len(track) > 1 else 1.0


def _plot(key: str, title: str, caption: str, figure: Figure, track: Track, height_px: int) -> Plot:
    """Give a figure the page's looks and pack it."""
    first = float(track.pts_seconds[0])
    last = float(track.pts_seconds[-1]) + _frame_seconds(track)
    figure.update_layout(
        template="none",
        height=height_px,
        margin={"l": MARGIN_LEFT, "r": MARGIN_RIGHT, "t": 8, "b": 30, "autoexpand": False},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        dragmode="zoom",
        showlegend=False,
    )
    figure.update_xaxes(range=[first, last], gridcolor=_GRID, zeroline=False, ticksuffix=" s", showticksuffix="last")
    figure.update_yaxes(gridcolor=_GRID, zerolinecolor=_GRID, automargin=False, title_standoff=6)
    keys = tuple(_key(index, trace) for index, trace in enumerate(figure.data))
    return Plot(key, title, caption, as_script_json(json.loads(figure.to_json() or "{}")), height_px, keys)


def _key(index: int, trace: Any) -> Key:
    """Return the legend's entry of a trace."""
    is_line = trace.type == "scatter"
    color = trace.line.color if is_line else trace.marker.color
    return Key(str(trace.name), str(color), index, trace.visible is not False, is_line)


def as_script_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
