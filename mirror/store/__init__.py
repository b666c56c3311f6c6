"""Bytes and state on this disk: blobs, fills, names, index, archives."""
