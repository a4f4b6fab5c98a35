"""The page of a comparison: one self-contained HTML file with what was compared, tables, picture, and what has no labels."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
body { font: 15px/1.5 "DejaVu Sans", Verdana, sans-serif; color: #1b1b1b; max-width: 76em; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .22em .9em .22em 0; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid #8c8c8c; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
tr.failed td { color: #a33c00; }
table.text td, table.text th { text-align: left; white-space: normal; vertical-align: top; }
.scroll { overflow-x: auto; } img { max-width: 100%; height: auto; }
.note { color: #4a4a4a; max-width: 60em; } .failure { color: #a33c00; }
pre { background: #f4f4f4; padding: .8em 1em; overflow-x: auto; }
"""
_SHOWN = 5  # names in a line of reasons before the rest is folded away


@dataclass(frozen=True)
class PageTable:
    """A table: caption, heads, and rows of text."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ComparisonPage:
    """What stands on the page.

    Parameters
    ----------
    title, sentence : what was compared, on which stars.
    failures : system -> why it failed.
    tables : of labels, and of cost and gap.
    reading : sentences that say how the tables are read.
    missing : system -> (spectrum, reason) of test stars without labels.
    left_out : (spectrum, reason) of spectra that are no test stars.
    systems : about recipes, data and models.
    settings : name -> text: the test set, versions, the command.
    """

    title: str
    sentence: str
    failures: Mapping[str, str]
    tables: Sequence[PageTable]
    reading: Sequence[str]
    missing: Mapping[str, Sequence[tuple[str, str]]]
    left_out: Sequence[tuple[str, str]]
    systems: PageTable
    settings: Mapping[str, str]


def comparison_page(page: ComparisonPage, picture: bytes | None, alt: str) -> str:
    """The page as HTML; nothing in it is fetched from elsewhere.

    Parameters
    ----------
    picture : PNG, or None; ``alt`` says in words what it shows.
    """
    parts = [f"<h1>{escape(page.title)}</h1>", f"<p>{escape(page.sentence)}</p>"]
    parts += [f'<p class="failure">{escape(name)} failed: {escape(reason)}</p>' for name, reason in page.failures.items()]
    parts += [_table(table) for table in page.tables]
    parts += [f'<p class="note">{escape(sentence)}</p>' for sentence in page.reading]
    if picture is not None:
        data = b64encode(picture).decode("ascii")
        parts += ["<h2>Estimate − truth</h2>", f'<p><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></p>']
    parts.append("<h2>Test stars without labels</h2>")
    parts += [_reasons(name, entries) for name, entries in page.missing.items() if entries]
    if not any(page.missing.values()):
        parts.append("<p>None: every system that did not fail has labels for every test star.</p>")
    parts.append("<h2>Spectra that are no test stars</h2>")
    parts.append(_reasons("", page.left_out) if page.left_out else "<p>None.</p>")
    parts += ["<h2>Recipes and models</h2>", _table(page.systems, "text")]
    for name, text in page.settings.items():
        parts += [f"<h2>{escape(name)}</h2>", f"<pre>{escape(text)}</pre>"]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(page.title)}</title>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n'


def _table(table: PageTable, kind: str = "") -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.heads)
    rows = []
    for row in table.rows:
        failed = ' class="failed"' if "failed" in row else ""
        rows.append(f"<tr{failed}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    caption = f"<h2>{escape(table.caption)}</h2>" if table.caption else ""
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f'{caption}<div class="scroll">{opening}<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _reasons(name: str, entries: Sequence[tuple[str, str]]) -> str:
    """Reasons with how often they come, most frequent first, and the names, folded away where there are many."""
    short = [f"{reason.split(' = ')[0]} outside the limits" if " = " in reason else reason for _, reason in entries]
    rows = []
    for reason, number in Counter(short).most_common():
        names = [escape(spectrum) for (spectrum, _), why in zip(entries, short, strict=True) if why == reason]
        text = ", ".join(names)
        if number > _SHOWN:
            text = f"<details><summary>{', '.join(names[:_SHOWN])}, … </summary>{', '.join(names[_SHOWN:])}</details>"
        rows.append(f"<tr><td>{number} × {escape(reason)}</td><td>{text}</td></tr>")
    heading = f"<h3>{escape(name)}</h3>" if name else ""
    return f'{heading}<div class="scroll"><table class="text"><tbody>{"".join(rows)}</tbody></table></div>'
