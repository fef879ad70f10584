"""The outcomes as one HTML page: the figures, and the window of every row that was stopped, all of it escaped."""

from collections.abc import Sequence
from html import escape

from evaluation.requests.figures import Figures, figures_text
from evaluation.requests.outcome import Outcome

MOST_SHOWN = 500
STYLE = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem}td,th{padding:.3rem;vertical-align:top;text-align:left}"


def page_html(figures: Figures, outcomes: Sequence[Outcome]) -> str:
    stopped = [outcome for outcome in outcomes if outcome.effect.stops]
    head = "<tr><th>id<th>judged<th>domain<th>label<th>effect<th>category<th>score<th>source<th>path<th>window"
    return "\n".join(
        (
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>Requests</title><style>{STYLE}</style><h1>Requests</h1>",
            "<p><strong>This page holds text of the data file.</strong> Keep it as you keep the data.</p>",
            f"<pre>{escape(figures_text(figures))}</pre>",
            f"<h2>Stopped</h2><p>{min(len(stopped), MOST_SHOWN)} of {len(stopped)} shown.</p><table>{head}",
            *map(_row, stopped[:MOST_SHOWN]),
            "</table></html>\n",
        )
    )


def _row(outcome: Outcome) -> str:
    row, window = outcome.row, outcome.window
    score = "" if outcome.score is None else f"{outcome.score:.3f}"
    cells = (row.id, outcome.target, row.domain, row.label, outcome.effect, outcome.category or "", score)
    place = (outcome.source or "", window.path, window.text)
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in (*cells, *place))
