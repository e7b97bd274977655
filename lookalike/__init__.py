"""Similar-product search by image, on Milvus."""

__version__ = "0.1.0"
