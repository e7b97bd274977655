"""What may be asked."""

import math
from dataclasses import dataclass

from schema.errors import BadQuery
from schema.filters import Filter

MAX_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Query:
    """A question: a picture, words, a product, or several of them together; at least one.

    Together they mean the normalised sum of their unit vectors, each counting the same; a product counts as the
    normalised mean of its pictures.
    """

    image: bytes | None = None
    text: str | None = None
    product_id: str | None = None
    where: Filter = ()
    limit: int = 10
    min_score: float | None = None

    def __post_init__(self) -> None:
        if self.image is None and self.text is None and self.product_id is None:
            raise BadQuery("nothing is asked: give a picture, --text WORDS, --product ID, or several of them")
        if self.text is not None and not self.text.strip():
            raise BadQuery("--text is empty; give it words, or leave it out")
        for value in (self.text, self.product_id):
            if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
                raise BadQuery(f"{value!a} is not valid UTF-8")
        if not 1 <= self.limit <= MAX_LIMIT:
            raise BadQuery(f"--limit {self.limit} is not between 1 and {MAX_LIMIT}")
        if self.min_score is not None and not (math.isfinite(self.min_score) and -1 <= self.min_score <= 1):
            raise BadQuery(f"--min-score {self.min_score} is no cosine; take a number between -1 and 1")
