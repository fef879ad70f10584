"""The outcomes as one HTML page with the windows that decided; everything from the data is escaped."""

from collections.abc import Mapping, Sequence
from html import escape

from evaluation.page import STYLE
from evaluation.requests.outcome import Effect, Outcome
from evaluation.requests.summary import groups, text

MOST_SHOWN = 500
WARNING = "This page holds content: the windows that decided, word for word. It is your own data; keep it as such."


def html(outcomes: Sequence[Outcome], described: Mapping[str, str]) -> str:
    """The whole page. It shows the first 500 windows."""
    names = "".join(f"<th>{effect.value}" for effect in Effect)
    rows = "".join(
        f"<tr><td>{group.target} {escape(group.domain)} {escape(group.lang)} {group.label}<td>{len(group.outcomes)}"
        f"<td>{group.blocked}" + "".join(f"<td>{group.counts.get(effect, 0)}" for effect in Effect)
        for group in groups(outcomes)
    )
    stopped = [one for one in outcomes if one.effect.stops or one.effect is Effect.COULD_NOT_LOOK]
    windows = "".join(map(_window, stopped[:MOST_SHOWN]))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Requests</title><style>{STYLE}pre{{white-space:pre-wrap}}</style><h1>Requests</h1><p><b>{WARNING}</b>"
        f'<div class="wide"><table><tr><th>group<th>rows<th>blocked, 95 %{names}{rows}</table></div>'
        f"<pre>{escape(text(outcomes, described))}</pre>"
        f"<h2>Windows that decided: {min(len(stopped), MOST_SHOWN)} of {len(stopped)}</h2>{windows}</html>\n"
    )


def _window(one: Outcome) -> str:
    score = "-" if one.score is None else f"{one.score:.3f} at {one.threshold:.3f}"
    window = one.window
    place = f"{window.path} [{window.start}, {window.end}), {window.third}"
    head = f"{one.row.id}: {one.row.label}, {one.effect}, {one.category}, {score}, {one.source}, {place} {one.detail}"
    return f"<h3>{escape(head)}</h3><pre>{escape(window.text)}</pre>"
