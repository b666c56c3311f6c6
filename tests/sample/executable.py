"""Static ELF executables, assembled by hand: write(1, text), exit(0). No compiler, no libc."""

import struct

# Linux maps segments whose address and file offset agree modulo the page size; 64 KiB covers arm64's largest page.
_PAGE_BYTES = 0x10000
_BASE = 0x400000
_HEADER_BYTES = 64
_SEGMENT_BYTES = 56
_CODE_OFFSET = _HEADER_BYTES + 2 * _SEGMENT_BYTES

_EM_X86_64, _EM_AARCH64 = 62, 183
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1


def amd64(text: bytes) -> bytes:
    """An x86-64 Linux executable that prints `text` and exits 0 (System V ABI; syscalls 1 and 60)."""
    head = b"\xb8" + struct.pack("<I", 1)  # mov eax, 1 (write)
    head += b"\xbf" + struct.pack("<I", 1)  # mov edi, 1 (standard output)
    tail = b"\xba" + struct.pack("<I", len(text))  # mov edx, length
    tail += b"\x0f\x05"  # syscall
    tail += b"\xb8" + struct.pack("<I", 60)  # mov eax, 60 (exit)
    tail += b"\x31\xff"  # xor edi, edi
    tail += b"\x0f\x05"  # syscall
    address = b"\x48\x8d\x35" + struct.pack("<i", len(tail))  # lea rsi, [rip + text]
    return _elf(_EM_X86_64, head + address + tail + text)


def arm64(text: bytes) -> bytes:
    """An AArch64 Linux executable that prints `text`, at most 65,535 bytes, and exits 0 (syscalls 64 and 93)."""
    code = [
        _movz(0, 1),  # x0: standard output
        0,  # adr x1, text: filled in below
        _movz(2, len(text)),
        _movz(8, 64),  # write
        0xD4000001,  # svc #0
        _movz(0, 0),
        _movz(8, 93),  # exit
        0xD4000001,
    ]
    words_to_text = len(code) - 1
    # adr counts bytes from itself; its two lowest bits stand apart, and are zero for a whole number of words.
    code[1] = 0x10000000 | words_to_text << 5 | 1
    return _elf(_EM_AARCH64, struct.pack(f"<{len(code)}I", *code) + text)


def _movz(register: int, value: int) -> int:
    if not 0 <= value < 1 << 16:
        raise ValueError(f"{value} does not fit a movz")
    return 0xD2800000 | value << 5 | register


def _elf(machine: int, body: bytes) -> bytes:
    """ELF64, little-endian: one segment that holds the whole file, and a stack that is not executable."""
    size = _CODE_OFFSET + len(body)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(identity, 2, machine, 1, _BASE + _CODE_OFFSET, _HEADER_BYTES, 0, 0),
        *(_HEADER_BYTES, _SEGMENT_BYTES, 2, 0, 0, 0),
    )
    load = struct.pack("<IIQQQQQQ", _PT_LOAD, _READ | _EXECUTE, 0, _BASE, _BASE, size, size, _PAGE_BYTES)
    stack = struct.pack("<IIQQQQQQ", _PT_GNU_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 16)
    return header + load + stack + body
