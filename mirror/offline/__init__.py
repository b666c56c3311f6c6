"""Commands that work on content at rest: verify, sync, export, gc."""
