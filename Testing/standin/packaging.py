"""`slicer.packaging` (Slicer 5.12): remembers what it was asked to install and installs nothing."""

ensured: list[list[str]] = []


def pip_ensure(  # noqa: PLR0917  Slicer's own
    requirements: list[str],
    constraints: object = None,
    skip_packages: object = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> None:
    ensured.append([str(requirement) for requirement in requirements])
