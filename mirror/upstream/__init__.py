"""Talking to another registry: client, authentication, retries, breaker."""
