"""Damage as disks, networks, editors and people do it, the same for the same seed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

TOKENS = [
    b"\x00",
    b"\xff\xfe",
    b"\x1b[2J",
    b"\r\n",
    b"\n",
    b"[" * 3000,
    b'{"a":' * 2000,
    b"]" * 10,
    b"9" * 5000,
    b"-1",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b'"',
    b"\\",
    b'"\\ud800"',
    b"18446744073709551616",
    b"0",
    b"{}",
    b"[]",
    b"=",
    b"../",
    b"\xed\xa0\x80",
    b"''",
    b"[[",
    b"\xef\xbb\xbf",
    b"#",
    b"1979-05-27T07:32:00Z",
    b"__import__('os').system('true')",
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    -0.0,
    10**18,
    10**30,
    -(10**400),
    float("inf"),
    float("nan"),
    "",
    "a",
    "\x00",
    "\ud800",
    "caf\udce9",
    "\x1b[31m",
    "../../x",
    "=1+1",
    "9999-12-31T23:59:59-14:00",
    "2026-W05-3",
    "x" * 10_000,
    [],
    {},
    [[]],
    [1, 2, 3],
    {"a": {"b": [None]}},
    ["\ud800"],
    {"\ud800": 1},
    {"run": 1.0, "config.seed": 2.0},
]


def damaged(content: bytes, random: Random) -> bytes:
    """Return `content` with one to three kinds of damage."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        content = random.choice(KINDS)(content, random)
    return content


def damaged_json(content: bytes, random: Random) -> bytes:
    """Return JSON, or lines of JSON, with another value, without a key, or with bytes that are damaged."""
    lines = content.split(b"\n") if b"\n{" in content else [content]
    number = random.randrange(len(lines))
    try:
        value = json.loads(lines[number])
    except ValueError:
        return damaged(content, random)
    if random.random() < 0.3:
        return damaged(content, random)
    for _ in range(random.choice([1, 1, 2, 5])):
        value = _changed(value, random)
    try:
        lines[number] = json.dumps(value).encode()
    except ValueError:
        # Python writes no integer of so many digits.
        return damaged(content, random)
    return b"\n".join(lines)


def _changed(value: Any, random: Random) -> Any:
    if not isinstance(value, dict | list) or not value or random.random() < 0.1:
        return random.choice(VALUES)
    key = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
    draw = random.random()
    if isinstance(value, list):
        changed = list(value)
        changed[key] = _changed(changed[key], random)
        return changed
    if draw < 0.1:
        return {name: entry for name, entry in value.items() if name != key}
    if draw < 0.2:
        return {**value, random.choice(["run", "config.x", "\ud800", "test/loss", "", "schema"]): random.choice(VALUES)}
    return {**value, key: _changed(value[key], random)}


def _turn_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 4, 40])):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _leave_out(content: bytes, random: Random) -> bytes:
    begin = random.randrange(len(content) + 1)
    return content[:begin] + content[begin + random.choice([1, 4, 50, 1000]) :]


def _repeat(content: bytes, random: Random) -> bytes:
    begin = random.randrange(len(content) + 1)
    return content[:begin] + content[begin : begin + 200] * random.choice([2, 3, 50]) + content[begin:]


def _insert(content: bytes, random: Random) -> bytes:
    begin = random.randrange(len(content) + 1)
    return content[:begin] + random.choice(TOKENS) + content[begin:]


def _overwrite(content: bytes, random: Random) -> bytes:
    begin, token = random.randrange(len(content) + 1), random.choice(TOKENS)
    return content[:begin] + token + content[begin + len(token) :]


def _blank(content: bytes, random: Random) -> bytes:
    """Zeros where the disk never got what was written."""
    begin = random.randrange(len(content) + 1)
    length = min(random.choice([8, 512, 4096]), len(content) - begin)
    return content[:begin] + b"\0" * length + content[begin + length :]


def _swap(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    random.shuffle(lines)
    return b"\n".join(lines)


def _noise(content: bytes, random: Random) -> bytes:
    return random.choice([b"", random.randbytes(200), random.choice(TOKENS), content * 2])


KINDS = [_turn_bits, _turn_bits, _cut, _leave_out, _repeat, _insert, _insert, _overwrite, _blank, _swap, _noise]
