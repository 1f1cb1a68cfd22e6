"""The Python packages that models need: what is missing is found without an import, and installed on consent."""

import importlib.metadata
import importlib.util
import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.gui.devices import nvidia_cards
from MedAILib.gui.words import size_text

TORCH = "torch"
TORCH_VERSION = ">=2.10"
# Name, the versions that will do, and about how much is downloaded.
NEEDED = (
    (TORCH, TORCH_VERSION, 200e6),
    ("monai", ">=1.6.1", 3e6),
    ("safetensors", ">=0.5", 1e6),
)
# What classifying needs besides: explanations, and what LIME and SHAP fit by.
NEEDED_TO_CLASSIFY = (
    *NEEDED,
    ("captum", ">=0.8", 10e6),
    ("scikit-learn", ">=1.5", 10e6),
)
# What training needs besides: a trainer, measures, plots and files.
NEEDED_TO_TRAIN = (
    *NEEDED,
    ("pytorch-ignite", ">=0.5", 1e6),
    ("scikit-learn", ">=1.5", 10e6),
    ("matplotlib", ">=3.9", 9e6),
    ("nibabel", ">=5.3", 4e6),
)
# What packages are called in Python where that is not the name they are installed by.
IMPORTED = {"pytorch-ignite": "ignite", "scikit-learn": "sklearn"}
CUDA_DOWNLOAD_BYTES = 2.8e9


class PackagesMissing(MedAIError):
    """What models need is not installed, and is not going to be."""


@dataclass(frozen=True)
class Missing:
    """A package that has to be installed.

    Args:
        name: of the package.
        version: which versions will do, such as ">=2.10".
        why: "is not installed", "is only half installed" and the like.
        download_bytes: about how much will be downloaded.
    """

    name: str
    version: str
    why: str
    download_bytes: float

    @property
    def requirement(self) -> str:
        return self.name + self.version


@dataclass(frozen=True)
class Tools:
    """What the installation needs of the world around it.

    Args:
        version: the installed version of a package, None without one.
        complete: whether an installed package's files are there.
        fits: whether a version is one of a requirement's, such as ">=2.10".
        cards: how many NVIDIA cards there are.
        confirm: asks the user; True for yes.
        installTorch: installs PyTorch, in the versions that will do; raises PackagesMissing where it can't.
        install: installs other packages.
    """

    version: Callable[[str], str | None]
    complete: Callable[[str], bool]
    fits: Callable[[str, str], bool]
    cards: Callable[[], int]
    confirm: Callable[[str], bool]
    installTorch: Callable[[str], None]
    install: Callable[[Sequence[str]], None]


def missing_packages(tools: Tools, needed: "Sequence[tuple[str, str, float]]" = NEEDED) -> list[Missing]:
    """What has to be installed before a model can run, classify (`NEEDED_TO_CLASSIFY`) or be trained."""
    found = []
    for name, version, size in needed:
        installed = tools.version(name)
        if installed is None:
            why = _("is not installed")
        elif not tools.complete(name):
            why = _("is only half installed")
        elif not tools.fits(installed, version):
            why = _("is too old ({version})").format(version=installed)
        else:
            continue
        large = name == TORCH and tools.cards() > 0
        found.append(Missing(name, version, why, CUDA_DOWNLOAD_BYTES if large else size))
    return found


def slow_torch(tools: Tools) -> str:
    """A sentence for who has an NVIDIA card and a PyTorch that can't use it; empty otherwise."""
    version = tools.version(TORCH)
    if version is None or not version.endswith("+cpu") or not tools.cards():
        return ""
    return _(
        "This computer has an NVIDIA card, but its PyTorch ({version}) can only use the CPU. For much faster runs, "
        "uninstall and install it again in the module PyTorch Utils, with a CUDA backend, and restart Slicer."
    ).format(version=version)


def offline(needed: "Sequence[tuple[str, str, float]]" = NEEDED) -> str:
    """How to install the packages without a connection."""
    return _(
        "Without a connection: on a computer with the same system and Python, run\n"
        "    pip download {packages} -d medai-packages\n"
        "copy the folder here, and run in Slicer's Python console\n"
        "    slicer.util.pip_install('--no-index --find-links /path/to/medai-packages {packages}')"
    ).format(packages=" ".join(name for name, _version, _size in needed))


def ensure_packages(tools: Tools, needed: "Sequence[tuple[str, str, float]]" = NEEDED) -> bool:
    """Install what is missing, if the user agrees; True if something was installed.

    Raises:
        PackagesMissing: the user did not agree, or the installation did not help; says how to go on.
    """
    missing = missing_packages(tools, needed)
    if not missing:
        return False
    if not tools.confirm(question(missing)):
        names = ", ".join(item.name for item in missing)
        raise _missing(_("Models need {names}, which was not installed.").format(names=names), needed)
    others = [item.requirement for item in missing if item.name != TORCH]
    try:
        if any(item.name == TORCH for item in missing):
            tools.installTorch(TORCH_VERSION)
        if others:
            tools.install(others)
    except PackagesMissing as error:
        raise _missing(str(error), needed) from error
    left = missing_packages(tools, needed)
    if left:
        faults = "; ".join(f"{item.name} {item.why}" for item in left)
        said = _("After the installation {faults}. Restart Slicer and try again.")
        raise _missing(said.format(faults=faults), needed)
    return True


def question(missing: Sequence[Missing]) -> str:
    """What the user is asked before anything is installed."""
    line = _("{package}: {why}, about {size}")
    lines = [
        "    " + line.format(package=item.requirement, why=item.why, size=size_text(item.download_bytes))
        for item in missing
    ]
    return _(
        "Models run with PyTorch and MONAI. This has to be installed into Slicer's Python:\n\n{packages}\n\n"
        "About {size} will be downloaded, and take some minutes; Slicer does not answer meanwhile. "
        "Nothing else is sent anywhere. Install it now?"
    ).format(packages="\n".join(lines), size=size_text(sum(item.download_bytes for item in missing)))


def slicer_tools() -> Tools:
    """The real ones, inside of Slicer."""
    return Tools(installed_version, is_complete, version_fits, nvidia_cards, _confirm, _install_torch, _install)


def installed_version(name: str) -> str | None:
    """The version of an installed package, from its papers; nothing is imported."""
    importlib.invalidate_caches()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_complete(name: str) -> bool:
    """Whether the package that the papers speak of is there."""
    found = importlib.util.find_spec(IMPORTED.get(name, name))
    return found is not None and found.origin is not None and Path(found.origin).is_file()


def _is_damaged(name: str) -> bool:
    return installed_version(name) is not None and not is_complete(name)


def version_fits(version: str, requirement: str) -> bool:
    """Whether "2.13.0+cpu" is what ">=2.10" asks for."""
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415  no part of Python; nobody needs it before Apply

    return SpecifierSet(requirement).contains(version, prereleases=True)


def _missing(text: str, needed: "Sequence[tuple[str, str, float]]") -> PackagesMissing:
    return PackagesMissing(f"{text}\n\n{offline(needed)}")


def _confirm(text: str) -> bool:
    import slicer.util  # noqa: PLC0415  where the window is

    from MedAILib.gui.ask import nobody_waits  # noqa: PLC0415

    with nobody_waits():
        return bool(slicer.util.confirmOkCancelDisplay(text, windowTitle=_("MedAI: packages to install")))


def _install_torch(versions: str) -> None:
    try:
        import PyTorchUtils  # noqa: PLC0415  the PyTorch extension may be absent
    except ModuleNotFoundError as error:
        raise PackagesMissing(
            _(
                "PyTorch is installed by the extension 'PyTorch': install that in the Extensions Manager, restart "
                "Slicer and try again."
            )
        ) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    try:
        if _is_damaged(TORCH):  # pip would take its papers for it, and install nothing
            logic.uninstallTorch()
        installed = logic.installTorch(askConfirmation=False, torchVersionRequirement=versions) is not None
    except (ImportError, OSError) as error:
        # It imports what it has installed, here, where nobody needs that; whether it is there is looked at next.
        logging.warning(_("PyTorch can't be imported in Slicer itself: {error}").format(error=error))
        return
    except (subprocess.CalledProcessError, RuntimeError) as error:
        said = _("PyTorch could not be installed ({error}); the Python console says why.")
        raise PackagesMissing(said.format(error=error)) from error
    if not installed:
        raise PackagesMissing(_("PyTorch could not be installed; the Python console says why."))


def _install(requirements: Sequence[str]) -> None:
    """By Slicer's own installer, which shows its progress; what is half installed, by its pip.

    Raises:
        PackagesMissing: pip did not succeed.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415  as in version_fits

    try:
        damaged = [requirement for requirement in requirements if _is_damaged(Requirement(requirement).name)]
        if damaged:
            import slicer.util  # noqa: PLC0415

            slicer.util.pip_install(["--force-reinstall", "--no-deps", *damaged])
        try:
            from slicer import packaging  # noqa: PLC0415  Slicer 5.12 on
        except ImportError:
            import slicer.util  # noqa: PLC0415

            slicer.util.pip_install(list(requirements))
        else:
            wanted = [Requirement(requirement) for requirement in requirements]
            packaging.pip_ensure(wanted, prompt_install=False, requester="MedAI")
    except (subprocess.CalledProcessError, RuntimeError) as error:
        names = ", ".join(requirements)
        said = _("{names} could not be installed ({error}); the Python console says why.")
        raise PackagesMissing(said.format(names=names, error=error)) from error
