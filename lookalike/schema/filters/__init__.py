"""Filters on metadata: what they are (ast), how they are written (parser, json), and how Milvus evaluates them.

To add an operator, change:

1. ast.py: `OPERATORS`, and what it means in the docstring of the module.
2. parser.py: `_CONDITION`, the pattern of a filter such as `price < 50`.
3. json.py: `_OPERATORS`, its name in `{"price": {"lt": 50}}`.
4. expression.py: `_write_condition`, the Milvus expression; `_match_incomparable`, if it needs values of one type.
5. milvus/lite/filter.py: `evaluate`, if the expression has a node that is not evaluated there yet.
6. serve/api/redaction.py: `_PARTIAL_COMPARISONS`, if it compares a text in part: over HTTP that would reveal paths.

Then add it to `OPERATORS` and `matches_condition` in tests/schema/test_filters.py, which compares Milvus with Python.
"""
