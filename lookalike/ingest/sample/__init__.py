"""A sample catalogue of drawn products, to try everything without photos of one's own.

`products` lists it, `photo` draws one photo of a product, `draw_catalogue` writes all of it to a folder. A product and
a view always give the same image, on every machine.
"""

from lookalike.ingest.sample.catalogue import draw_catalogue
from lookalike.ingest.sample.photos import photo
from lookalike.ingest.sample.product import Product, products

__all__ = ["Product", "draw_catalogue", "photo", "products"]
