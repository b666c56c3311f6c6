"""A pull-only static mirror registry."""
