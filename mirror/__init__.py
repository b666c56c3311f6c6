"""A pull-only static mirror registry."""

# Here rather than asked of what was installed, which takes a start twenty milliseconds.
__version__ = "0.1.0"
