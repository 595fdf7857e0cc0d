"""What users and networks call classes: short phrases made of the words of class names, and requests for some of them.

The class ``"Ankle boot"`` is called ``ankle boot``, ``ankle`` and ``boot``; ``"T-shirt/top"`` is ``t-shirt`` and
``top``; ``"9"`` is ``9`` and ``nine``.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from cnn_jax.errors import UsageError

PADDING = "<padding>"
MOST = 1000  # images that a request may ask for
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ARTICLES = ("a", "an", "the", "some")
_WORD = re.compile(r"[\w'-]*\w")
_LISTED = 60  # words in a message


class Request(NamedTuple):
    """What a user asks for.

    Attributes:
      words: Of the class, as they are known.
      tokens: Their numbers, padded.
      number: How many images; None if the request does not say.
    """

    words: tuple[str, ...]
    tokens: Int32[np.ndarray, " words"]
    number: int | None


@dataclasses.dataclass(frozen=True)
class Phrases:
    """The phrases of some classes.

    Attributes:
      of_class: The phrases of each class, each as its words; the first one is the whole name.

    >>> phrases = Phrases.of_names(("T-shirt/top", "Ankle boot"))
    >>> phrases.of_class
    ((('t-shirt',), ('top',)), (('ankle', 'boot'), ('ankle',), ('boot',)))
    >>> phrases.vocabulary, phrases.length
    (('<padding>', 'ankle', 'boot', 't-shirt', 'top'), 2)
    """

    of_class: tuple[tuple[tuple[str, ...], ...], ...]

    @classmethod
    def of_names(cls, class_names: Sequence[str]) -> "Phrases":
        """The phrases of the classes of these names.

        Raises:
          UsageError: A name has no letter or digit.
        """
        return cls(tuple(map(_phrases, class_names)))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The name of each token; the first is padding."""
        return (PADDING, *sorted({word for phrases in self.of_class for phrase in phrases for word in phrase}))

    @property
    def length(self) -> int:
        """The number of words of the longest phrase."""
        return max(len(phrase) for phrases in self.of_class for phrase in phrases)

    def table(self) -> tuple[Int32[np.ndarray, "classes most length"], Int32[np.ndarray, " classes"]]:
        """The token numbers of all phrases of each class, padded, and how many phrases each class has."""
        counts = np.array([len(phrases) for phrases in self.of_class], np.int32)
        tokens = np.zeros((len(self.of_class), counts.max(), self.length), np.int32)
        for number, phrases in enumerate(self.of_class):
            for place, phrase in enumerate(phrases):
                tokens[number, place] = self.tokens(phrase)
        return tokens, counts

    def tokens(self, phrase: Sequence[str]) -> Int32[np.ndarray, " length"]:
        """The token numbers of a phrase, padded; the words must be known."""
        found = np.zeros(self.length, np.int32)
        found[: len(phrase)] = [self.vocabulary.index(word) for word in phrase]
        return found

    def request(self, text: str) -> Request:
        """What a text asks for: a number or an article, which may be left out, and a phrase, which may be plural.

        Args:
          text: Such as ``'a sneaker'`` or ``'nine boots'``.

        Raises:
          UsageError: A word is not known, there is none or there are too many, or the number is out of range.

        >>> Phrases.of_names(("Ankle boot", "9")).request("nine boots")
        Request(words=('boot',), tokens=array([3, 0], dtype=int32), number=9)
        """
        words = _WORD.findall(text.lower())
        count = None
        if len(words) > 1 and words[0] in _ARTICLES:
            words = words[1:]
        elif len(words) > 1 and (words[0].isdecimal() or words[0] in NUMBERS):
            count = int(words[0]) if words[0].isdecimal() else NUMBERS.index(words[0])
            words = words[1:]
        if count is not None and not 1 <= count <= MOST:
            raise UsageError(f"--words={text!r}: asks for {count} images; give a number from 1 to {MOST}")
        known = [self._singular(text, word) for word in words]
        if not 1 <= len(known) <= self.length:
            most = "one word" if self.length == 1 else f"1 to {self.length} words"
            raise UsageError(f"--words={text!r}: give {most} of what is known: {self._listed()}")
        return Request(tuple(known), self.tokens(known), count)

    def _singular(self, text: str, word: str) -> str:
        forms = [word, *(word.removesuffix(ending) for ending in ("s", "es") if word.endswith(ending))]
        known = next((form for form in forms if form in self.vocabulary), None)
        if known is None:
            raise UsageError(f"--words={text!r}: the word {word!r} is unknown; known are {self._listed()}")
        return known

    def _listed(self) -> str:
        words = self.vocabulary[1:]
        return ", ".join(words[:_LISTED]) + (f" and {len(words) - _LISTED} more" if len(words) > _LISTED else "")


def _phrases(name: str) -> tuple[tuple[str, ...], ...]:
    """The phrases of a class: its name, alternatives after a slash, and all runs of words within them."""
    alternatives = [words for part in name.lower().split("/") if (words := _WORD.findall(part.replace("_", " ")))]
    if not alternatives:
        raise UsageError(f"class name {name!r} has no letter or digit; phrases are made of its words")
    runs = [
        tuple(words[first : first + length])
        for words in alternatives
        for length in range(len(words), 0, -1)
        for first in range(len(words) - length + 1)
    ]
    spoken = [
        tuple(NUMBERS[int(word)] if word in map(str, range(len(NUMBERS))) else word for word in run) for run in runs
    ]
    return tuple(dict.fromkeys(phrase for pair in zip(runs, spoken, strict=True) for phrase in pair))
