"""A batch's results for people and for programs: a page with a picture of each case, and a table."""

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from MedAILib.batch.records import Row
from MedAILib.output import whole_files

LARGEST_SHOWN = 6
CSS = """
:root { color-scheme: light; font: 15px/1.45 system-ui, sans-serif; color: #22272e; background: #fff }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } p { margin: .2rem 0 } .quiet { color: #57606a; font-size: .85rem }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; margin-top: 1.5rem }
figure { margin: 0; border: 1px solid #d0d7de; border-radius: .4rem; overflow: hidden; break-inside: avoid }
figure img { display: block; width: 100%; background: #000 } figcaption { padding: .5rem .7rem }
figcaption b { overflow-wrap: anywhere } .failed { border-color: #b3261e } .failed b { color: #b3261e }
table { border-collapse: collapse; font-size: .82rem; width: 100% } td:last-child { text-align: right }
"""


def write_overview(
    rows: Sequence[Row],
    pictures: Mapping[str, str],
    facts: Mapping[str, str],
    columns: tuple[str, Sequence[str]],
    folder: Path,
) -> None:
    """Write `cases.csv` and `index.html` into the batch's folder.

    Args:
        rows: one for each case.
        pictures: for each case's name the path of its picture, relative to the folder.
        facts: what the head of the page says of the batch, by name.
        columns: the model's task, and the names of its structures or classes, a column each.
        folder: the batch's.

    Raises:
        OutputError: one can't be written; then both are as they were.
    """
    with whole_files() as files:
        with files.writing(folder / "cases.csv") as part:
            part.write_text(table(rows, columns[1], columns[0]), encoding="utf-8", newline="")
        with files.writing(folder / "index.html") as part:
            part.write_text(page(rows, pictures, facts), encoding="utf-8", newline="")


def table(rows: Sequence[Row], structures: Sequence[str], task: str) -> str:
    """One line per case: state, seconds of each part, warnings, and in between its figures.

    These are the volume of each structure in mL, or the decision and the probability of each class, or the number of
    findings of each class.

    Args:
        rows: one for each case.
        structures: names of the model's structures or classes.
        task: of the model.
    """
    decided = task in ("classification", "detection")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["case", "state", "reason", "read_s", "run_s", "write_s"]
    title = {"classification": "p({})", "detection": "n({})"}.get(task, "{} (mL)")
    titles = [title.format(name) for name in structures]
    writer.writerow([*head, *(["decision"] if decided else []), *titles, "files", "warnings"])
    for row in rows:
        seconds = ["" if row.state == "failed" else f"{x:.3f}" for x in (row.read_s, row.run_s, row.write_s)]
        known: Mapping[str, float] = row.probabilities or row.findings or row.volumes_ml
        if task == "detection" and row.state != "failed":
            known = dict.fromkeys(structures, 0) | dict(row.findings)
        figures = [f"{known[name]:.6g}" if name in known else "" for name in structures]
        ends = ["; ".join(row.files), " ".join(row.warnings)]
        said = [row.decision] if decided else []
        writer.writerow([row.case, row.state, row.reason, *seconds, *said, *figures, *ends])
    return text.getvalue()


def page(rows: Sequence[Row], pictures: Mapping[str, str], facts: Mapping[str, str]) -> str:
    """The overview as HTML; cases that failed come first."""
    failed = sum(row.state == "failed" for row in rows)
    title = f"{len(rows)} case{'s' if len(rows) != 1 else ''}" + (f", {failed} failed" if failed else "")
    shown = sorted(rows, key=lambda row: row.state != "failed")
    said = "".join(f"<p><b>{escape(key)}</b> {escape(value)}</p>" for key, value in facts.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>MedAI batch: {escape(title)}</title><style>{CSS}</style></head><body>
<h1>{escape(title)}</h1>{said}
<p class="quiet">All figures are in cases.csv. For research use only. Not a medical device.</p>
<div class="cases">{"".join(_card(row, pictures.get(row.case)) for row in shown)}</div>
</body></html>
"""


def _card(row: Row, picture: str | None) -> str:
    name = escape(row.case)
    if row.state == "failed":
        return f'<figure class="failed"><figcaption><b>{name}</b><p>{escape(row.reason)}</p></figcaption></figure>'
    image = f'<img src="{escape(quote(picture))}" alt="Result of {name}" loading="lazy">' if picture else ""
    figures = row.probabilities or row.findings or row.volumes_ml
    largest = sorted(figures.items(), key=lambda item: -item[1])
    form = "{:.1%}" if row.probabilities else "{:.0f}" if row.findings else "{:.2f} mL"
    shown = [(name, form.format(value)) for name, value in largest]
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{text}</td></tr>" for name, text in shown[:LARGEST_SHOWN])
    more = f'<p class="quiet">and {len(largest) - LARGEST_SHOWN} more</p>' if len(largest) > LARGEST_SHOWN else ""
    notes = "".join(f'<p class="quiet">{escape(text)}</p>' for text in row.warnings)
    kept = " from an earlier run" if row.state == "kept" else ""
    decision = f"<p>{escape(row.decision)}</p>" if row.decision else ""
    seconds = f'<p class="quiet">{row.read_s + row.run_s + row.write_s:.1f} s{kept}</p>'
    text = f"<b>{name}</b>{decision}<table>{lines}</table>{more}{notes}{seconds}"
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"
