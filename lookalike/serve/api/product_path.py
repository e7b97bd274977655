"""The path of a product, whose id may be any text, also one with slashes, dots and line breaks."""

from starlette.convertors import Convertor, register_url_convertor


class _AnyText(Convertor[str]):
    """Matches also line breaks, which Starlette's `path` does not: it reads `red%0A` as `red`."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_text", _AnyText())

PRODUCT_PATH = "/products/{product_id:any_text}"
