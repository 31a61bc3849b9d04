"""Language detection: langdetect as the primary label, lingua as the cross-check."""

import multiprocessing
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from persona_leakage.domain.cores import cores
from persona_leakage.domain.languages import LABEL_OTHER, Language

_ROWS_WORTH_A_PROCESS = 1500  # a fresh interpreter costs about a second, some 500 rows of langdetect


def detect_codes(texts: Sequence[str], min_characters: int, detect_characters: int, seed: int) -> list[str]:
    """Detect each text's language with langdetect.

    Returns:
        langdetect's code for the first `detect_characters` of each stripped text, or `other` when the stripped text is shorter
        than `min_characters` or langdetect finds no features. A text's code depends on nothing but the text and the seed.
    """
    detect = partial(_detect_code, min_characters=min_characters, detect_characters=detect_characters, seed=seed)
    workers = min(cores(), len(texts) // _ROWS_WORTH_A_PROCESS)
    if workers < 2:
        return [detect(text) for text in texts]
    # spawn: forking a process in which torch has started threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(detect, texts, chunksize=100))


def _detect_code(text: str, min_characters: int, detect_characters: int, seed: int) -> str:
    from langdetect import DetectorFactory, LangDetectException, detect

    text = text.strip()
    if len(text) < min_characters:
        return LABEL_OTHER
    DetectorFactory.seed = seed
    try:
        return str(detect(text[:detect_characters]))
    except LangDetectException:
        return LABEL_OTHER


def label_of_codes(languages: Mapping[str, Language]) -> dict[str, str]:
    """Map langdetect's codes to labels."""
    return {code: label for label, language in languages.items() for code in language.detected_as}


def cross_check(
    texts: Sequence[str], languages: Mapping[str, Language], detect_characters: int, mixed_share: float
) -> list[tuple[str, bool]]:
    """Detect each text's language with lingua, which chooses among `languages` only, and flag mixed texts.

    Returns:
        For each text, of which lingua sees the first `detect_characters` once it is stripped, its label (`other` when lingua
        sees no letters) and whether a second language covers at least `mixed_share` of the characters that lingua assigned to
        any language.
    """
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    known = [(label, code) for label, language in languages.items() for code in language.cross_check_codes]
    codes = {getattr(IsoCode639_1, code.upper()): label for label, code in known}
    detector = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()
    heads = [text.strip()[:detect_characters] for text in texts]
    whole = detector.detect_languages_in_parallel_of(heads)
    segments = detector.detect_multiple_languages_in_parallel_of(heads)
    results = []
    for found, parts in zip(whole, segments, strict=True):
        covered: Counter[str] = Counter()
        for part in parts:
            covered[codes[part.language.iso_code_639_1]] += part.end_index - part.start_index
        ranked = covered.most_common(2)
        mixed = len(ranked) == 2 and ranked[1][1] >= mixed_share * covered.total()
        results.append((LABEL_OTHER if found is None else codes[found.iso_code_639_1], mixed))
    return results
