"""The report as one HTML page: inline SVG, no script, no outside file, everything from the data escaped."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from evaluation.metrics import Figure, Floats, reliability, roc
from evaluation.report import Group, Report

SIZE = 300
ROC_POINTS = 200
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1d2430;background:#fff}
table{border-collapse:collapse;width:100%;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .5rem;border-bottom:1px solid #d9dee7;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}small{color:#5b6575}
.wide{overflow-x:auto}.plots{display:flex;flex-wrap:wrap;gap:2rem}figure{margin:0}svg text{font-size:11px;fill:#5b6575}
@media (prefers-color-scheme:dark){body{background:#14181f;color:#e6eaf1}th,td{border-color:#333b49}
small,svg text{color:#9aa5b5;fill:#9aa5b5}}
"""
NAMES = {
    "accuracy": "accuracy", "f1_safe": "F1 safe", "f1_unsafe": "F1 unsafe", "macro_f1": "macro F1", "auroc": "AUROC",
    "fpr": "FPR", "recall": "recall", "precision": "precision", "ece": "ECE",
}  # fmt: skip


def html(report: Report) -> str:
    """The whole page."""
    title = f"{report.scores} on {report.data}"
    return "\n".join(
        (
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>",
            f"<p>{report.rows} rows scored, {report.missing} without a score, {report.broken} broken. ",
            f"{report.ms['p50']:.1f} ms a row at the median, {report.ms['p95']:.1f} ms at the 95th percentile. ",
            "Brackets: 95 % bootstrap intervals.</p>",
            _table("Group", report.groups),
            _recalls(report),
            '<div class="plots">',
            _plot("ROC", "false positive rate", "recall", _roc(report)),
            _plot("Reliability", "score", "share unsafe", _reliability(report)),
            "</div>",
            _bars(report.groups),
            "</html>\n",
        )
    )


def _table(heading: str, groups: Sequence[Group]) -> str:
    head = "".join(f"<th>{name}" for name in ("safe", "unsafe", *NAMES.values()))
    rows = (
        f"<tr><td>{escape(group.name)}<td>{group.safe}<td>{group.unsafe}"
        + "".join(f"<td>{_cell(group.figures[name])}" for name in NAMES)
        for group in groups
    )
    return f'<div class="wide"><table><tr><th>{heading}{head}{"".join(rows)}</table></div>'


def _cell(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    return f"{figure.value:.3f}<br><small>{figure.low:.3f} to {figure.high:.3f}</small>"


def _recalls(report: Report) -> str:
    rows = "".join(f"<tr><td>{escape(name)}<td>{_cell(figure)}" for name, figure in report.recalls.items())
    return f"<h2>Recall by category</h2><table><tr><th>category<th>recall{rows}</table>" if rows else ""


def _plot(title: str, across: str, up: str, inside: str) -> str:
    box = f'<rect x="40" y="10" width="{SIZE}" height="{SIZE}" fill="none" stroke="#8a94a6"/>'
    diagonal = f'<line x1="40" y1="{SIZE + 10}" x2="{SIZE + 40}" y2="10" stroke="#8a94a6" stroke-dasharray="4"/>'
    labels = (
        f'<text x="{40 + SIZE / 2}" y="{SIZE + 40}" text-anchor="middle">{across}</text>'
        f'<text x="12" y="{10 + SIZE / 2}" transform="rotate(-90 12 {10 + SIZE / 2})" text-anchor="middle">{up}</text>'
        f'<text x="36" y="{SIZE + 24}">0</text><text x="{SIZE + 36}" y="{SIZE + 24}">1</text>'
        '<text x="28" y="16">1</text>'
    )
    frame = f'<svg width="{SIZE + 60}" height="{SIZE + 50}" role="img" aria-label="{title}">'
    return f"<figure><h2>{title}</h2>{frame}{box}{diagonal}{labels}{inside}</svg></figure>"


def _place(across: float, up: float) -> str:
    return f"{40 + across * SIZE:.1f},{10 + (1 - up) * SIZE:.1f}"


def _roc(report: Report) -> str:
    false, hits = roc(report.scored.unsafe, report.scored.p)
    if not len(false):
        return '<text x="60" y="40">needs rows of both labels</text>'
    return f'<polyline points="{_thinned(false, hits)}" fill="none" stroke="#1f6feb" stroke-width="2"/>'


def _thinned(across: Floats, up: Floats) -> str:
    kept = np.unique(np.linspace(0, len(across) - 1, min(ROC_POINTS, len(across))).astype(int))
    return " ".join(_place(float(across[place]), float(up[place])) for place in kept)


def _reliability(report: Report) -> str:
    return "".join(_dots(*reliability(report.scored.unsafe, report.scored.p)))


def _dots(said: Floats, was: Floats, number: Iterable[int]) -> Iterable[str]:
    for across, up, count in zip(said, was, number, strict=True):
        if count:
            x, y = _place(float(across), float(up)).split(",")
            size = 2 + min(8.0, count**0.5 / 4)
            dot = f'<circle cx="{x}" cy="{y}" r="{size:.1f}" fill="#1f6feb" fill-opacity=".7">'
            yield f"{dot}<title>{count} rows</title></circle>"


def _bars(groups: Sequence[Group]) -> str:
    """For each group, the share of safe rows flagged and of unsafe rows flagged."""
    height = 34 * len(groups) + 10
    bars = []
    for place, group in enumerate(groups):
        y = 34 * place
        bars.append(f'<text x="0" y="{y + 18}">{escape(group.name)}</text>')
        for row, (name, colour) in enumerate((("recall", "#1f6feb"), ("fpr", "#d1242f"))):
            value = group.figures[name].value
            if value is None:
                continue
            top = y + 4 + 12 * row
            bars.append(f'<rect x="200" y="{top}" width="{value * 500:.1f}" height="10" fill="{colour}"/>')
            bars.append(f'<text x="{206 + value * 500:.1f}" y="{top + 9}">{NAMES[name]} {value:.3f}</text>')
    heading = "<h2>By source: unsafe rows flagged (blue) and safe rows flagged (red)</h2>"
    frame = f'<svg width="820" height="{height}" role="img" aria-label="by source">'
    return f'{heading}<div class="wide">{frame}{"".join(bars)}</svg></div>'
