"""YAML as plain data: a reader that makes no objects and no copies of copies."""

from typing import Any

from MedAILib.errors import SpecError

try:
    import yaml
except ImportError:  # Slicer's own Python may be without it
    yaml = None


def parse_yaml(text: str, source: Any) -> Any:
    """Parse YAML text into plain data.

    Args:
        text: the whole file.
        source: the file it came from, for messages.

    Raises:
        SpecError: it is no YAML, uses aliases or tags, or the package PyYAML is missing.
    """
    if yaml is None:
        raise SpecError(f"{source} is YAML, and the Python package that reads it is missing; install pyyaml.")
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken)):
                raise SpecError(f"{source} uses an anchor, alias or tag of YAML; write the value in its place.")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        reason = " ".join(str(error).split())
        raise SpecError(f"{source} can't be read as YAML: {reason}.") from error
