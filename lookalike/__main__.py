"""`python -m lookalike` runs the command `lookalike`."""

from lookalike.cli import main

main(prog_name="lookalike")
