# What a compiler is known by: a source with most of what the language has. Two
# interpreters that give the same bytecode for it are taken for the same compiler.
# It compiles from CPython 3.7 on.
"""Docstring."""
from __future__ import annotations
import os.path as path, sys
from collections import (OrderedDict as Ordered, namedtuple)

CONSTANTS = (1, -1, 2 ** 70, 0.5, -0.0, 1j, True, None, ..., "text", "näme", b"bytes", (1, (2, "a b")), "x" * 30)
LARGE = 0xFFFF_FFFF_FFFF_FFFF_FFFF
if sys.version_info >= (3, 8) and not CONSTANTS or LARGE < 3 <= 5 != 6:
    FLAG: int = 1
elif "a" in {"a", "b", 3} or 4 not in [1, 2]:
    FLAG = ~1 + 2 * 3 // 4 % 5 - (6 << 7 >> 8 & 9 | 10 ^ 11) / 12 @ CONSTANTS
else:
    del FLAG


def decorated(*decorators, key="value", **rest):
    def outer(function):
        nonlocal key
        counter = 0

        def inner(first, second=1, *others, third: int = 3, **more) -> "str":
            nonlocal counter
            counter += second
            assert first, f"{first!r:>{second}} {others[0]:x} {more['a'] + 1}"
            return function(first, *others, third=third, **more) if counter else [*others, *decorators]

        return inner

    return outer


class Meta(type):
    def __new__(mcs, name, bases, space, **options):
        return super().__new__(mcs, name, bases, dict(space, **options))


@decorated(1, 2, key=lambda value, *, scale=2: value * scale)
class Thing(dict, metaclass=Meta, option=1):
    """A class."""
    __slots__ = ("a", "b")
    attribute: "int" = 3

    def __init__(self, a, b=None):
        super().__init__()
        self.a, (self.b, *self.rest) = a, b
        self[a:b:2], self[..., 1] = self.a[1:], self.b[-1]

    @property
    def closure(self):
        return __class__, [(lambda: index)() for index in range(3) if index % 2 for _ in self.rest]


def generator(values):
    global COUNT
    COUNT = 0
    try:
        for index, value in enumerate(values):
            while value:
                if index == 3:
                    continue
                value -= 1
                received = yield value
                if received is not None:
                    break
            else:
                yield from (item for item in {key: val for key, val in {**rest(), "a": 1}.items()})
        else:
            return {element for element in values}
    except (ValueError, KeyError) as error:
        raise RuntimeError("message") from error
    except Exception:
        pass
    else:
        COUNT += 1
    finally:
        print(COUNT, end="")


async def coroutine(source):
    async with source as a, source.b() as (c, d):
        async for item in source:
            await item
        return [await x async for x in c if await x]


def nested():
    with open("a") as a, open("b") as b:
        try:
            try:
                return a if not b else -b
            finally:
                a.close()
        finally:
            for _ in range(2):
                try:
                    continue
                finally:
                    break
    x = y = z = 1
    x, y = y, x
    x **= y; z @= x; z //= 3; z ^= 1
    if x and y or z and not (x or y):
        return not x is y is not z
    print("%s %d" % (x, y), "{}".format(z), sep="")
    "unused"
    return (yield)


def many_branches(n):
    if n == 0: return "zero"
    elif n < 0: raise ValueError(n)
    elif n in (1, 2, 3): return {1: "one", 2: "two"}.get(n, "three")
    while True:
        n -= 1
        if n > 10: break
        if n == 5: return None
    return [i for i in range(n)], {i for i in range(n)}, {i: i for i in range(n)}, (i for i in range(n))


def templates(essence, prefix):
    text = textwrap.dedent(
        f"""\
            Failed {essence.validator!r} in {essence.word}{prefix}:
                {essence.format(list(prefix)[:-1])}

            On {essence.instance["a"]}:
                {prefix(essence.instance,
                        16)}
            """.rstrip()
    )
    return (text, f"{essence!s:<{prefix}}" f"{prefix}"
            f"{{}}", re.compile(rf"""
        (
            ({essence.a})
            (
                ({prefix})*
            )?
        )""", re.VERBOSE,
    ))


if __name__ == "__main__":
    many_branches(3)
