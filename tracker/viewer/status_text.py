"""What the page says about a frame, as HTML: time, and what became of each person."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np

from flame.palette import PERSON_COLORS
from tracker.status import STATUS_COLORS, FrameStatus

if TYPE_CHECKING:
    from tracker.result import Track

_MEANINGS = {
    FrameStatus.OK: "tracked",
    FrameStatus.LOW_CONFIDENCE: "low confidence: use with care",
    FrameStatus.LOST: "lost: the head is hidden in this frame",
    FrameStatus.NO_FACE: "no face so far: nothing to show",
}
_STRIP_PARTS = 240
_SEVERITY = (FrameStatus.OK, FrameStatus.NO_FACE, FrameStatus.LOW_CONFIDENCE, FrameStatus.LOST)
_DOT = "flex:none;width:.75em;height:.75em;border-radius:50%;outline:1px solid #8888"
_ROW = '<div style="display:flex;gap:.5em;align-items:baseline;font-size:.85em;line-height:1.45">'


def person_color(person: int) -> tuple[float, float, float]:
    """Return the colour of a person's head, sRGB from 0 to 1."""
    return PERSON_COLORS[person % len(PERSON_COLORS)]


def css_color(color: tuple[float, float, float]) -> str:
    """Return a colour in CSS."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)


def frame_text(track: Track, frame: int, picture_note: str | None) -> str:
    """Return HTML that tells time and number of a frame, and status and residual of everybody in it.

    Args:
        track: the clip.
        frame: position in the track.
        picture_note: why there is no picture, if there is none.
    """
    seconds, number = float(track.pts_seconds[frame]), int(track.frame_index[frame])
    count = f"frame {number} of the clip, {frame + 1} of {len(track)} in the track"
    lines = [f"{_ROW}<b>{seconds:.3f} s</b><span>{count}</span></div>"]
    lines += [_person_line(track, frame, person) for person in range(track.num_people)]
    if picture_note:
        lines.append(f'{_ROW}<span style="color:#a2542b">No picture: {html.escape(picture_note)}</span></div>')
    return f'<div style="padding:.2em .8em">{"".join(lines)}</div>'


def _person_line(track: Track, frame: int, person: int) -> str:
    status = FrameStatus(int(track.status[person, frame]))
    text = _MEANINGS[status]
    if status.is_tracked:
        residual = float(track.residual_px[person, frame])
        percent = 100 * residual / float(track.interocular_px[person, frame])
        text += f", residual {residual:.2f} px ({percent:.1f} % of the eye distance)"
    color = css_color(person_color(person))
    dot = f'<span style="{_DOT};background:{color}"></span>'
    name = f"person {person}" if track.num_people > 1 else "head"
    return f'{_ROW}{dot}<b style="color:{STATUS_COLORS[status]};white-space:nowrap">{name}</b><span>{text}</span></div>'


def status_strip(track: Track) -> str:
    """Return HTML with a strip a person: the clip from left to right, coloured by status, the worst of each part."""
    strips = "".join(_strip(track.status[person]) for person in range(track.num_people))
    legend = " ".join(
        f'<span style="color:{STATUS_COLORS[status]}">&#9632;</span> {status.label.replace("_", " ")}'
        for status in FrameStatus
        if (track.status == status).any()
    )
    return (
        f'<div style="padding:0 .8em .3em"><div style="display:grid;gap:2px">{strips}</div>'
        f'<div style="font-size:.75em;opacity:.8">{legend}</div></div>'
    )


def _strip(status: np.ndarray) -> str:
    """Return one strip: bands of equal colour as a gradient with hard stops."""
    severity = np.zeros(len(FrameStatus), np.int64)
    severity[list(_SEVERITY)] = range(len(_SEVERITY))
    count = min(_STRIP_PARTS, len(status))
    edges = np.arange(count + 1) * len(status) // count
    worst = np.maximum.reduceat(severity[status], edges[:-1])
    starts = np.flatnonzero(np.diff(worst, prepend=-1))
    ends = np.append(starts[1:], count)
    stops = ",".join(
        f"{STATUS_COLORS[_SEVERITY[worst[start]]]} {100 * start / count:.2f}% {100 * end / count:.2f}%"
        for start, end in zip(starts, ends, strict=True)
    )
    return f'<div style="height:6px;border-radius:3px;background:linear-gradient(90deg,{stops})"></div>'
