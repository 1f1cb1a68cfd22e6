"""Write what each built-in model's folder hashes to into `Resources/Models/checksums.json`: `make checksums`."""

import json

from MedAILib.store.content import tree_sha256
from MedAILib.store.find import CHECKSUMS, builtin_models


def main() -> None:
    """Hash every built-in model."""
    found = {name: tree_sha256(folder) for name, folder in builtin_models().items()}
    CHECKSUMS.write_text(json.dumps(found, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
