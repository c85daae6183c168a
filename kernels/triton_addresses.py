"""Finds 32-bit address arithmetic that packs of thousands of members overflow, in Triton's intermediate code.

An offset may have 32 bits where it cannot become large. Suspicious is a product that an offset depends on, of 32
bits, of something that grows with the pack (a program's number, a number read from a table, an argument) and of
something large.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# A number from a table can count pixels, a program's number blocks of a row: so much of each stays below 2**31.
_LARGE_FOR_LOADED = 64
_LARGE_FOR_PROGRAM = 2048

# What is read, divided or rounded has a bound of its own.
_BOUNDED = ("tt.load", "arith.divsi", "arith.remsi", "arith.divui", "arith.remui", "arith.fptosi", "arith.fptoui")

_DEFINITION = re.compile(r"^\s*(%[\w#]+)(?::\d+)? = \"?([\w.]+)\"?(.*?)(?: loc\(.*\))?$", re.MULTILINE)
_OPERAND = re.compile(r"%[\w#]+")
_CONSTANT = re.compile(r"(?:dense<)?(-?\d+)>? : (?:tensor<.*x)?i\d+")


def narrow_addresses(ttir: str) -> Iterator[str]:
    """The suspicious products of a kernel, as they stand in its intermediate code.

    Args:
        ttir: the text of ``kernel.asm["ttir"]``.
    """
    code = _Code(ttir)
    seen = set()
    for operation, rest in code.definitions.values():
        if operation != "tt.addptr" or not re.search(r", (?:tensor<.*x)?i32>?$", rest.strip()):
            continue
        for product in code.products(_OPERAND.findall(rest)[1]):
            if product not in seen:
                seen.add(product)
                yield product


class _Code:
    """The definitions of a kernel: name -> (operation, the rest of the line)."""

    def __init__(self, ttir: str) -> None:
        self.definitions = {match[1]: (match[2], match[3]) for match in _DEFINITION.finditer(ttir)}
        self._known: dict[str, frozenset[str]] = {}

    def products(self, name: str) -> Iterator[str]:
        """The suspicious products that a value of 32 bits depends on."""
        operation, rest = self.definitions.get(name, ("", ""))
        if operation in _BOUNDED:
            return
        operands = _OPERAND.findall(rest)
        if operation == "arith.muli":
            first, second = operands[:2]
            if self._is_suspicious(first, second) or self._is_suspicious(second, first):
                yield f"{name} = {operation}{rest}"
        for operand in operands:
            yield from self.products(operand)

    def _is_suspicious(self, growing: str, factor: str) -> bool:
        sources = self._sources(growing)
        constants = [self._constant(source) for source in self._sources(factor)]
        if any(constant is None for constant in constants):  # an argument, or another thing that grows
            return bool(sources & {"tt.load", "tt.get_program_id"}) and not self._is_grid(factor)
        largest = max((abs(constant) for constant in constants if constant is not None), default=0)
        return ("tt.load" in sources and largest >= _LARGE_FOR_LOADED) or (
            "tt.get_program_id" in sources and largest >= _LARGE_FOR_PROGRAM
        )

    def _is_grid(self, name: str) -> bool:
        return self._sources(name) <= {"tt.get_num_programs"}

    def _sources(self, name: str) -> frozenset[str]:
        """What a value comes from: operations that begin a chain, or the names of constants and arguments."""
        if name not in self._known:
            operation, rest = self.definitions.get(name, ("", ""))
            if operation in ("tt.load", "tt.get_program_id", "tt.get_num_programs"):
                self._known[name] = frozenset({operation})
            elif operation in ("", "arith.constant"):
                self._known[name] = frozenset({name})
            elif operation == "tt.make_range":
                self._known[name] = frozenset()
            else:
                self._known[name] = frozenset().union(*map(self._sources, _OPERAND.findall(rest)))
        return self._known[name]

    def _constant(self, name: str) -> int | None:
        operation, rest = self.definitions.get(name, ("", ""))
        found = _CONSTANT.search(rest) if operation == "arith.constant" else None
        return int(found.group(1)) if found else None
