# Compiles sources to bytecode: on standard input one after another a path's and a
# source's length (32 bits each, little-endian) and their bytes, on standard output a
# length and what a .pyc file with an unchecked hash (PEP 552) has, or length 0 if the
# source is not one of this version of Python. Imports nothing from files.
import _frozen_importlib_external as external
import _imp
import sys


def number(value):
    return value.to_bytes(4, "little")


def main():
    read, write, flush = sys.stdin.buffer.read, sys.stdout.buffer.write, sys.stdout.buffer.flush
    write(bytes(sys.version_info[:2]))
    flush()
    while True:
        lengths = read(8)
        if len(lengths) < 8:
            return
        path = read(int.from_bytes(lengths[:4], "little")).decode("utf-8")
        source = read(int.from_bytes(lengths[4:], "little"))
        try:
            code = compile(source, path, "exec", dont_inherit=True, optimize=0)
            compiled = external._code_to_hash_pyc(code, _imp.source_hash(external._RAW_MAGIC_NUMBER, source), False)
        except Exception:
            compiled = b""
        write(number(len(compiled)))
        write(compiled)
        flush()


main()
