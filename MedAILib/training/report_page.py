"""What all evaluations' reports have in common: three files written together, one page that needs nothing else."""

import base64
import io
import json
from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from MedAILib.output import cannot_write, whole_files
from MedAILib.spec import ModelSpec

PACKAGES = ("medai", "torch", "monai", "python")
CODE = ("SHA-256", "Data", "Command")


class Evaluated(Protocol):
    """What every evaluation knows of the model that was run, and when."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def provenance(self) -> dict[str, str]: ...

    @property
    def started(self) -> datetime: ...


def write_report(summary: Mapping[str, Any], table: str, page: str, folder: Path) -> None:
    """Write `summary.json`, `cases.csv` and `report.html` into a folder, all of them or none.

    All three are complete beside their places before the first takes its place, so a failure or a cancelled run leaves
    an older report as it was, and a folder that was made for this report is removed again.

    Args:
        summary: numbers and texts; none of them infinite.
        table: a row per case, or more.
        page: HTML.
        folder: made if it is absent; other files in it are left alone.

    Raises:
        OutputError: the folder or a file can't be written.
    """
    told = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    made = _make_folder(folder)
    try:
        with whole_files() as files:
            for name, text in (("summary.json", told), ("cases.csv", table), ("report.html", page)):
                with files.writing(folder / name) as path:
                    path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()


def report_title(evaluation: Evaluated, count: int, what: str) -> str:
    """Such as "Liver on 3 cases"."""
    return f"{evaluation.spec.title or evaluation.spec.name} on {count} {what}{'s' if count != 1 else ''}"


def report_page(title: str, lead: str, sections: str, notes: str) -> str:
    """A report as one HTML page, printable.

    Args:
        title: as text.
        lead: the result in a sentence, as HTML.
        sections: HTML.
        notes: how to read the figures, as HTML.
    """
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{CSS}</style></head><body><main>
<header><p class="over">MedAI evaluation report</p><h1>{escape(title)}</h1>{lead}</header>
{sections}
<section class="notes"><h2>How to read the figures</h2>{notes}</section>
<footer>For research use only. Not a medical device.</footer>
</main></body></html>
"""


def facts_section(evaluation: Evaluated, data: Mapping[str, str], command: str, times: Mapping[str, str]) -> str:
    """The section on model and data.

    Args:
        evaluation: what knows the model.
        data: what is told of the data, by name.
        command: what the user typed; empty where nothing was.
        times: how long it took, by name.
    """
    known, started = evaluation.provenance, evaluation.started
    facts = {
        "Model": f"{evaluation.spec.name}, version {evaluation.spec.version}",
        "SHA-256": known.get("sha256", ""),
        **data,
        "Command": command,
        "Started": f"{started.day} {started:%B %Y, %H:%M} UTC",
        "Device": known.get("device", ""),
        **times,
        "Software": ", ".join(f"{key} {known[key]}" for key in PACKAGES if key in known),
    }
    rows = "".join(
        f"<dt>{key}</dt><dd{' class=code' if key in CODE else ''}>{escape(value)}</dd>"
        for key, value in facts.items()
        if value
    )
    return f"<section><h2>Model and data</h2><dl>{rows}</dl></section>"


def figure_html(figure: Figure, caption: str) -> str:
    """A figure with its caption, as HTML that needs nothing else."""
    text = escape(caption)
    return f'<figure><img alt="{text}" src="{png_data(figure)}"><figcaption>{text}</figcaption></figure>'


def png_data(figure: Figure) -> str:
    """A figure as the address of a picture that holds it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=200)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder; those that were absent, the innermost first."""
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return absent


CSS = """
:root{color-scheme:light}
body{margin:0;background:#fff;color:#22272e;
  font:15px/1.5 "Segoe UI","Helvetica Neue",Helvetica,Arial,"DejaVu Sans",sans-serif}
main{max-width:920px;margin:0 auto;padding:44px 28px 32px}
.over{margin:0;color:#6a737d;font-size:13px;letter-spacing:.02em}
h1{margin:2px 0 6px;font-size:29px;line-height:1.2;font-weight:600;letter-spacing:-.01em}
.lead{margin:0;font-size:17px}
h2{margin:36px 0 10px;font-size:18px;font-weight:600}
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:4px 10px 4px 0;text-align:right;vertical-align:baseline;white-space:nowrap}
th{font-weight:600;vertical-align:top}
thead th{border-bottom:1.5px solid #22272e;font-size:13px}
th:first-child,.what{text-align:left}
tbody tr.first>*{border-top:1px solid #d5d9de;padding-top:9px}
thead+tbody tr.first:first-child>*{border-top:0}
tbody{border-bottom:1px solid #d5d9de}
td:last-child,th:last-child{padding-right:0}
.narrow{font-size:12.5px}.narrow th,.narrow td{padding-right:7px}.narrow thead th{white-space:normal}
.note{margin:8px 0 0;font-size:12.5px;color:#4d5661}
.warning{border-left:3px solid #c9510c;margin:14px 0 0;padding:2px 0 2px 12px;font-size:14px}
figure{margin:0;break-inside:avoid}
figure img{width:100%;display:block}
figcaption{margin-top:6px;color:#4d5661;font-size:13px;line-height:1.4}
.pictures{display:grid;grid-template-columns:repeat(3,1fr);gap:20px 18px}
.pictures figcaption{overflow-wrap:anywhere;font-size:12px}
.key{margin:0;font-size:13px;line-height:1.5;color:#4d5661}
.key b{display:block;font-weight:400;color:#22272e;margin-bottom:4px}
.key b::before{content:"";display:inline-block;width:18px;height:3px;margin-right:5px;vertical-align:middle;
  background:var(--c);-webkit-print-color-adjust:exact;print-color-adjust:exact}
.key b.dashed::before{background:repeating-linear-gradient(90deg,var(--c) 0 6px,transparent 6px 9px)}
.key b.dotted::before{background:repeating-linear-gradient(90deg,var(--c) 0 2px,transparent 2px 4px)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 20px;margin:0;font-size:14px}
dt{color:#6a737d}dd{margin:0;overflow-wrap:anywhere}
.code{font:13px/1.6 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.notes p{margin:0 0 7px;font-size:13.5px;color:#3b434c}
footer{margin-top:36px;border-top:1px solid #d5d9de;padding-top:10px;color:#6a737d;font-size:13px}
@page{size:A4;margin:15mm}
@media print{
main{padding:0;max-width:none}body{font-size:12.5px}h2{break-after:avoid}tr,dl{break-inside:avoid}
}
@media screen and (max-width:700px){.pictures{grid-template-columns:repeat(2,1fr)}section{overflow-x:auto}}
"""
