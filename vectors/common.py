"""What the scripts that make vectors share: the small number types, and writing or checking the files."""
import json
import os
import struct
import sys


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def f16_bits(x):
    return struct.unpack("<H", struct.pack("<e", x))[0]


def f16(bits):
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def bf16_bits(x):
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


def bf16(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def emit(script, files):
    """Writes lists of cases beside a script, by file name; with --check, ends where a committed file differs."""
    for name, cases in files.items():
        text = "[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n"
        path = os.path.join(os.path.dirname(os.path.abspath(script)), name)
        if "--check" in sys.argv:
            with open(path) as file:
                if file.read() != text:
                    sys.exit(f"{name} is not what this script makes")
            continue
        with open(path, "w") as file:
            file.write(text)
