"""Wiring: the configuration becomes sources, a registry and a listener. Nothing else reads the configuration.

Its modules are imported one by one: a command loads only what it needs, and the scan of local content begins before
the server is loaded.
"""
