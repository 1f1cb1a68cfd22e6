"""What a model says of itself, in words for the panel: its description, its state, the question about its licence."""

import html
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from slicer.i18n import tr as _

from MedAILib.gui.models import ModelEntry
from MedAILib.gui.words import size_text
from MedAILib.spec import Classes, ModelSpec
from MedAILib.store.catalogue import Entry

SHOWN_LABELS = 12


def description(model: ModelEntry) -> str:
    """What a model says of itself, as HTML; nothing in it is taken for markup."""
    spec = model.spec
    if model.offer is not None:
        return _table(model, _offered(model, model.offer))
    if spec is None:
        return f"<b>{html.escape(model.title)}</b><p>{html.escape(model.fault)}</p>"
    asks = _("This model runs only by executing code of its own. You are asked before it does.")
    return _table(model, _facts(model, spec), (*((asks,) if model.code else ()), *spec.warnings))


def _table(model: ModelEntry, facts: Iterable[tuple[str, str]], notes: Iterable[str] = ()) -> str:
    rows = [(title, text) for title, text in facts if text]
    table = "".join(f"<tr><td><b>{title}</b>&nbsp;</td><td>{html.escape(text)}</td></tr>" for title, text in rows)
    note = _("Note:")
    warnings = "".join(f"<p><b>{note}</b> {html.escape(text)}</p>" for text in notes)
    return f"<b>{html.escape(model.title)}</b>{warnings}<table>{table}</table>"


def _offered(model: ModelEntry, offer: Entry) -> Iterator[tuple[str, str]]:
    yield _("State"), f"{state_text(model)}: {model.fault}" if model.fault else _("not on this computer yet")
    yield _("Task"), offer.description or ""
    yield _("Image"), ", ".join(filter(None, (offer.modality, *offer.channels)))
    yield _("Finds"), _names(offer.labels)
    yield _("Licence"), offer.licence.in_words()
    yield _("Use"), offer.intended_use or ""
    yield _("Version"), offer.version
    yield (
        _("Size"),
        _("{size} to download").format(size=size_text(model.size_bytes))
        if model.size_bytes
        else _("unknown until it comes"),
    )


def _names(names: Sequence[str]) -> str:
    some = ", ".join(names[:SHOWN_LABELS])
    left = len(names) - SHOWN_LABELS
    return _("{names} and {count} more").format(names=some, count=left) if left > 0 else some


def _facts(model: ModelEntry, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    yield _("Task"), spec.description or spec.task
    yield _("Image"), ", ".join(filter(None, (spec.modality, *spec.channels)))
    yield _("Finds"), _names([label.name for label in spec.labels])
    yield from _decides(spec.classes) if spec.classes is not None else ()
    yield _("Licence"), spec.licence
    yield _("Made by"), spec.authors
    yield _("Use"), spec.intended_use
    yield _("Version"), spec.version
    yield _("Size"), f"{size_text(model.size_bytes)}, {state_text(model)}"
    yield _("Lies in"), str(spec.source) if model.state != "built in" else ""


def state_text(model: ModelEntry) -> str:
    """The model's state in the user's language."""
    return {
        "built in": _("built in"),
        "installed": _("installed"),
        "from a folder": _("from a folder"),
        "from a file": _("from a file"),
        "can be downloaded": _("can be downloaded"),
        "does not run": _("does not run"),
    }[model.state]


def _decides(classes: Classes) -> Iterator[tuple[str, str]]:
    """What a classifier says of its answers."""
    yield _("Decides"), f"{_names(classes.names)} ({classes.kind})"
    if classes.dimensions == 2:
        yield _("Takes"), _("sequences of pictures") if classes.sequence else _("pictures")
    else:
        yield _("Takes"), _("sequences of volumes") if classes.sequence else _("volumes")
    yield _("Also wants"), ", ".join(covariate.name for covariate in classes.covariates)
    strange = classes.out_of_distribution
    if strange is not None:
        limit = _("{method} {threshold}, validated on: {images}")
        images = strange.validated_on or _("unsaid")
        yield (
            _("Not sure above"),
            limit.format(method=strange.method, threshold=f"{strange.threshold:g}", images=images),
        )


def licence_question(known: Entry) -> str:
    """What the user is asked before a model is downloaded."""
    size = size_text(known.remote.size) if known.remote.size else _("an unknown size")
    host = urlsplit(known.remote.address).hostname
    texts = [
        _("{model}, {size}, is downloaded from {host}.").format(model=known.title or known.name, size=size, host=host),
        _("Its licence: {licence}").format(licence=known.licence.in_words()),
    ]
    if known.intended_use:
        texts.append(_("Its author says: {words}").format(words=known.intended_use))
    return "\n\n".join(texts)
