"""Numbers beside an image, as a user types them in one line."""

from MedAILib.errors import InputError


def covariates_of(text: str) -> dict[str, float]:
    """The numbers of a line such as "age=54, sex=1".

    Raises:
        InputError: a part without a name or with what is no number.
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.replace(";", ",").split(","))):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not (name and sign):
            raise InputError(f"'{part}' is no covariate; type each as name=number, with commas between them.")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise InputError(f"The covariate {name} is '{value}', which is no number.") from error
    return found
