"""Sources of images: a folder or a manifest.

To add a source:

1. Write a class that satisfies the Protocol `ImageSource` (source.py), in a file of its own here.
2. Let `open_source` (open.py) return it for the names that mean it.
3. Test what it yields, as tests/ingest/test_manifest.py does.

A source only names images. `ImageReader` (files.py) reads their bytes from a path or from any URI that fsspec opens.
"""
