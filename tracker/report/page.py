"""Put a report together as one HTML file that needs nothing else: its style, scripts, pictures and clip are in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from tracker.report.clip import CarriedClip
from tracker.report.figures import MARGIN_LEFT, MARGIN_RIGHT, Key, Plot, as_script_json
from tracker.report.problems import KINDS
from tracker.status import STATUS_COLORS, FrameStatus

_WIDE_ASPECT = 2.6
"""A clip that is wider, such as a row of panels, has the page's whole width."""
_MAX_KEYS = 10
"""Switches of curves that are seen at once; the others are folded away."""

_KIND_COLORS = {
    "lost": STATUS_COLORS[FrameStatus.LOST],
    "no face yet": STATUS_COLORS[FrameStatus.NO_FACE],
    "low confidence": STATUS_COLORS[FrameStatus.LOW_CONFIDENCE],
    "high residual": "#b06fd0",
    "jump": "#3c7dc4",
    "at a bound": "#8c6d5a",
    "missing frames": "#5a616c",
}

# What may be loaded at all: nothing that is not in the file.
_POLICY = (
    "default-src 'none'; img-src data: blob:; media-src blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


@dataclass(frozen=True)
class ToldProblem:
    """Hold one entry of the list of problems."""

    kind: str
    when: str
    detail: str
    frame: int
    """Position in the track to show."""
    picture: str | None
    """JPEG in base64."""


@dataclass(frozen=True)
class Sides:
    """Hold the pictures of one person's head."""

    title: str
    views: tuple[tuple[str, str], ...]
    """Name of the side, JPEG in base64."""


@dataclass(frozen=True)
class Setting:
    """Hold one setting."""

    name: str
    value: str
    is_changed: bool
    """Whether it is not the default."""


@dataclass(frozen=True)
class Moment:
    """Hold what one person does in a single picture."""

    key: str
    """Its name in the page."""
    title: str
    rows: tuple[tuple[str, str], ...]
    """Names and values."""


@dataclass(frozen=True)
class Page:
    """Hold everything that a report tells."""

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]
    clip: CarriedClip | None
    clip_notes: tuple[str, ...]
    timeline: Plot | None
    plots: tuple[Plot, ...]
    moments: tuple[Moment, ...]
    """What is told in numbers where there is one moment only, and no line to draw."""
    problems: tuple[ToldProblem, ...]
    problem_notes: tuple[str, ...]
    """What is wrong with the clip or the run as a whole, and what is left out of the list."""
    sides: tuple[Sides, ...]
    sides_note: str
    people: tuple[tuple[str, ...], ...]
    """The table of people: a row of cells each."""
    settings: tuple[Setting, ...]
    data: Mapping[str, Any]
    """What the page's script needs of every frame."""


PEOPLE_COLUMNS = ("person", "tracked", "ok", "low confidence", "lost", "no face", "residual, median", "95 %")


def render_page(page: Page) -> str:
    """Return the HTML of a report; all that comes from files is escaped."""
    from plotly.offline import get_plotlyjs

    data = dict(page.data, marginLeft=MARGIN_LEFT, marginRight=MARGIN_RIGHT)
    if page.clip is not None:
        data |= {"mime": page.clip.mime, "firstSeconds": page.clip.first_seconds}
    plots = (*([] if page.timeline is None else [page.timeline]), *page.plots)
    is_wide = page.clip is not None and page.clip.width > _WIDE_ASPECT * page.clip.height
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{_text(page.title)} – tracking report</title>",
        f"<style>{_asset('report.css')}</style></head><body>",
        f'<header><p class="kicker">Tracking report</p><h1>{_text(page.title)}</h1>',
        f"<p>{_text(page.subtitle)}</p></header>",
        '<noscript><p style="padding:0 1.25rem">The clip and the plots of this page need JavaScript.</p></noscript>',
        f'<main class="columns{" across" if is_wide else ""}">',
        f'<div class="watch stack">{_clip(page)}{"" if page.timeline is None else _plot(page.timeline)}</div>',
        '<div class="rest stack">',
        _summary(page),
        _problems(page),
        _identity(page),
        *(_plot(plot) for plot in page.plots),
        *(_moment(moment) for moment in page.moments),
        _settings(page.settings),
        "</div></main>",
        "<footer>Everything on this page is in this file; it loads nothing from anywhere. Plots: plotly.js.</footer>",
        *(f'<script type="application/json" id="figure-{plot.key}">{plot.json}</script>' for plot in plots),
        f'<script type="application/json" id="data">{as_script_json(data)}</script>',
    ]
    if page.clip is not None and page.clip.is_video:
        parts.append(f'<script type="text/plain" id="clip-data">{page.clip.base64}</script>')
    parts += [f"<script>{get_plotlyjs()}</script>", f"<script>{_asset('report.js')}</script>", "</body></html>"]
    return "\n".join(parts) + "\n"


def _text(text: str) -> str:
    """Return text for HTML; what is no text, as in some file names, becomes a question mark."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _asset(name: str) -> str:
    """Read a file that comes with this package."""
    return (files("tracker.report") / "assets" / name).read_text(encoding="utf-8")


def _notes(notes: Iterable[str]) -> str:
    """Return small paragraphs."""
    return "".join(f'<p class="note">{_text(note)}</p>' for note in notes if note)


def _clip(page: Page) -> str:
    """Return the section of the clip, its controls, and the line that says what is shown."""
    clip = page.clip
    if clip is None:
        body, controls = '<p class="nothing">There are no pictures of the clip here.</p>', ""
    elif clip.is_video:
        body = (
            '<div class="screen"><video controls playsinline preload="auto" '
            f'width="{clip.width}" height="{clip.height}" aria-label="The clip with the tracked heads drawn over it">'
            "</video></div>"
        )
        controls = '<label><input type="checkbox" id="follow"> show the moment under the pointer</label>'
    else:
        body = (
            f'<div class="screen"><img src="data:{clip.mime};base64,{clip.base64}" width="{clip.width}" '
            f'height="{clip.height}" alt="The picture with the tracked heads drawn over it"></div>'
        )
        controls = ""
    steps = ""
    if len(page.data["seconds"]) > 1:
        steps = '<button data-step="-1">‹ frame</button><button data-step="1">frame ›</button>'
    moves = " moves" if clip is not None and clip.is_video else ""
    return (
        f'<section class="clip{moves}" aria-labelledby="h-clip"><h2 id="h-clip">Clip</h2>{body}'
        f'<div class="bar">{steps}{controls}</div><output></output>{_notes(page.clip_notes)}</section>'
    )


def _plot(plot: Plot) -> str:
    """Return the section of a plot with its legend."""
    shown, folded = plot.keys[:_MAX_KEYS], plot.keys[_MAX_KEYS:]
    legend = f'<ul class="keys">{_keys(plot, shown)}</ul>'
    if folded:
        legend += (
            f"<details><summary>{len(folded)} more, less active</summary>"
            f'<ul class="keys">{_keys(plot, folded)}</ul></details>'
        )
    return (
        f'<section aria-labelledby="h-{plot.key}"><figure><h2 id="h-{plot.key}">{_text(plot.title)}</h2>'
        f"<figcaption>{_text(plot.caption)}</figcaption>"
        f'<div class="plot" data-key="{plot.key}" style="min-height:{plot.height_px}px">'
        f'<div role="img" aria-label="{_text(plot.caption)}"></div><div class="cursor"></div></div>'
        f"{legend}</figure></section>"
    )


def _keys(plot: Plot, keys: Sequence[Key]) -> str:
    """Return entries of a legend, as switches where they are."""
    items = []
    for key in keys:
        style = f'style="--color:{key.color}"'
        if key.is_switch:
            pressed = str(key.is_shown).lower()
            items.append(
                f'<li><button class="key" {style} aria-pressed="{pressed}" data-plot="{plot.key}" '
                f'data-trace="{key.trace}">{_text(key.name)}</button></li>'
            )
        else:
            items.append(f'<li><span class="key" {style}>{_text(key.name)}</span></li>')
    return "".join(items)


def _summary(page: Page) -> str:
    """Return the section of the facts."""
    facts = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in page.facts)
    head = "".join(
        f'<th scope="col"{"" if index == 0 else " class=number"}>{name}</th>'
        for index, name in enumerate(PEOPLE_COLUMNS)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{_text(cell)}</th>' if index == 0 else f'<td class="number">{_text(cell)}</td>'
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in page.people
    )
    return (
        f'<section aria-labelledby="h-summary"><h2 id="h-summary">Summary</h2><dl class="facts">{facts}</dl>'
        '<div class="wide"><table><caption>Frames by status; residuals in percent of the eye distance</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _problems(page: Page) -> str:
    """Return the section of what went wrong where."""
    items = []
    for problem in page.problems:
        picture = ""
        if problem.picture is not None:
            picture = f'<img src="data:image/jpeg;base64,{problem.picture}" alt="" loading="lazy">'
        color = _KIND_COLORS.get(problem.kind, "#888888")
        items.append(
            f'<li><button class="problem{"" if picture else " plain"}" data-frame="{problem.frame}">{picture}<div>'
            f'<strong><i class="tag" style="--color:{color}"></i>{_text(problem.kind)}</strong>'
            f"<span>{_text(problem.when)}</span><span>{_text(problem.detail)}</span></div></button></li>"
        )
    kinds = {problem.kind for problem in page.problems}
    told = "".join(f"<dt>{kind}</dt><dd>{_text(word)}</dd>" for kind, word in KINDS.items() if kind in kinds)
    meaning = (
        f'<details><summary>What these words mean</summary><dl class="facts">{told}</dl></details>' if told else ""
    )
    body = f'<ul class="problems">{"".join(items)}</ul>' if items else '<p class="nothing">Nothing was found.</p>'
    return (
        '<section aria-labelledby="h-problems"><h2 id="h-problems">What went wrong where</h2>'
        f"{_notes(page.problem_notes)}{body}{meaning}</section>"
    )


def _identity(page: Page) -> str:
    """Return the section of who was found."""
    groups = []
    for person in page.sides:
        views = "".join(
            f'<figure><img src="data:image/jpeg;base64,{picture}" alt="Neutral head, {name}">'
            f"<figcaption>{name}</figcaption></figure>"
            for name, picture in person.views
        )
        title = f"<h3>{_text(person.title)}</h3>" if person.title else ""
        groups.append(f'{title}<div class="sides">{views}</div>')
    return (
        '<section aria-labelledby="h-identity"><h2 id="h-identity">Identity</h2>'
        f"{''.join(groups)}{_notes([page.sides_note])}</section>"
    )


def _moment(moment: Moment) -> str:
    """Return the section of the numbers of a single picture."""
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="number">{_text(value)}</td></tr>'
        for name, value in moment.rows
    )
    return (
        f'<section aria-labelledby="h-{moment.key}"><h2 id="h-{moment.key}">{_text(moment.title)}</h2>'
        f'<div class="wide"><table><tbody>{rows}</tbody></table></div></section>'
    )


def _settings(settings: Sequence[Setting]) -> str:
    """Return the section of the settings, those that were changed first and in bold."""
    rows = "".join(
        f'<tr{" class=changed" if setting.is_changed else ""}><th scope="row">{_text(setting.name)}</th>'
        f"<td>{_text(setting.value)}</td></tr>"
        for setting in sorted(settings, key=lambda setting: not setting.is_changed)
    )
    changed = sum(setting.is_changed for setting in settings)
    return (
        '<section aria-labelledby="h-settings"><h2 id="h-settings">Settings</h2><details>'
        f"<summary>{len(settings)} settings, {changed} of them changed</summary>"
        '<div class="wide settings"><table><caption>Changed settings are in bold</caption>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )
