"""WordPiece: how BERT cuts text into the numbered pieces it was trained on.

Text is first cleaned (control characters out, white space to blanks, Chinese characters set
apart), lower-cased, stripped of accents and cut at blanks and around punctuation. Each word is
then spelt with pieces of a fixed vocabulary, greedily: the longest piece that fits, then the
longest that fits the rest, where a piece inside a word is written ``##piece``. A word that cannot
be spelt is ``[UNK]``. A sentence is framed by ``[CLS]`` and ``[SEP]``.

Source: J. Devlin et al., "BERT", 2019, and its published uncased vocabulary. Left out: special
tokens written in the text itself, and cased vocabularies.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparqsim.base import InputError

LONGEST_WORD = 100  # published: BERT spells words of up to 100 characters, longer ones are [UNK]

CHINESE = (  # published: the CJK blocks that BERT sets apart, first and last code point
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


def _is_punctuation(character: str) -> bool:
    """ASCII that is no letter, digit, blank or control counts, beside Unicode's own."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")


def _cleaned(text: str) -> str:
    kept = []
    for character in text:
        if character in "\t\n\r" or unicodedata.category(character) == "Zs":
            kept.append(" ")
        elif any(first <= ord(character) <= last for first, last in CHINESE):
            kept.append(f" {character} ")
        elif character != "\ufffd" and not unicodedata.category(character).startswith("C"):
            kept.append(character)
    return "".join(kept)


def words(text: str) -> list[str]:
    """Return the lower-cased words and punctuation marks of a text, accents stripped."""
    parts = unicodedata.normalize("NFD", _cleaned(text))
    plain = "".join(c for c in parts if unicodedata.category(c) != "Mn").lower()
    return "".join(f" {c} " if _is_punctuation(c) else c for c in plain).split()


class WordPiece:
    """A vocabulary, and the cutting of text into it.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Piece to number, with ``[CLS]``, ``[SEP]`` and ``[UNK]`` among them.

    Raises
    ------
    InputError
        If one of the three is missing.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        missing = [piece for piece in ("[CLS]", "[SEP]", "[UNK]") if piece not in vocabulary]
        if missing:
            raise InputError(f"a WordPiece vocabulary must hold {', '.join(missing)}")
        self.vocabulary = vocabulary

    @classmethod
    def read(cls, path: Path) -> WordPiece:
        """Read a ``vocab.txt``: one piece per line, numbered from 0."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} must be a vocabulary, one piece per line: {error}") from None
        return cls({piece: number for number, piece in enumerate(lines)})

    def spell(self, word: str) -> list[str]:
        """Return the pieces of one word, ``["[UNK]"]`` where it cannot be spelt."""
        pieces: list[str] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                if prefix + word[start:end] in self.vocabulary:
                    pieces.append(prefix + word[start:end])
                    start = end
                    break
            else:
                return ["[UNK]"]
        return pieces or ["[UNK]"]

    def encode(self, text: str, longest: int) -> list[int]:
        """Return the numbers of a text, framed, cut to at most ``longest`` of them.

        Raises
        ------
        InputError
            If the text is not a string.
        """
        if not isinstance(text, str):
            raise InputError(f"a sentence must be text, got {type(text).__name__}")
        pieces = [piece for word in words(text) for piece in self.spell(word)]
        framed = ["[CLS]", *pieces[: longest - 2], "[SEP]"]
        return [self.vocabulary[piece] for piece in framed]

    def encode_all(self, texts: Sequence[str], longest: int) -> list[list[int]]:
        """Return the numbers of several texts."""
        return [self.encode(text, longest) for text in texts]
