"""Which language a text is in, of the few that a French philosopher's answer could slip into."""

import functools

from py3langid.langid import MODEL_FILE, LanguageIdentifier

LANGUAGES = ("fr", "en", "es", "it", "pt", "de", "zh")
"""French, its neighbours, and what the base model was mostly trained on; more would add wrong guesses."""


def likeliest(text: str) -> tuple[str, float]:
    """The language's ISO 639 code and its probability among LANGUAGES."""
    code, probability = identifier().rank(text)[0]
    return str(code), float(probability)


@functools.cache
def identifier() -> LanguageIdentifier:
    """Takes half a second to load."""
    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found.set_languages(LANGUAGES)
    return found
