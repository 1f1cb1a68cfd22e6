"""`slicer.i18n` without translations: every text stands for itself."""


def tr(text: str) -> str:
    return text


def translate(context: str, text: str) -> str:
    return text
