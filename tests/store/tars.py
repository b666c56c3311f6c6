"""Headers of tars, changed by hand."""


def with_checksum(block: bytes) -> bytes:
    """A header of 512 bytes with its checksum made right."""
    total = sum(block[:148]) + 8 * 0x20 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


def repair_checksums(content: bytearray) -> None:
    """Make right the checksum of whatever still looks like a header."""
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start : start + 512] = with_checksum(bytes(content[start : start + 512]))
