"""The vector language: a small instruction builder on top of LLVM's.

A kernel's body is ordinary Python that runs once, at compile time. It receives a ``Builder`` and int64 run-time
values (byte addresses, byte strides, counts) and emits vector instructions, so a Python loop in it is unrolled
and ``with k.loop(n)`` is a loop of the compiled code. Accumulators are ``Variable``s: stack slots that LLVM
turns into registers. This exists because LLVM never makes the register tiles that reach the machine's peak
out of scalar loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from llvmlite import ir
from numba.core import cgutils

from .width import V

F32, F64 = ir.FloatType(), ir.DoubleType()
I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
VECTOR, INTEGERS, DOUBLES = ir.VectorType(F32, V), ir.VectorType(I32, V), ir.VectorType(F64, V)

Value: TypeAlias = ir.Value
Address: TypeAlias = ir.Value | int


class Variable:
    """A value that changes while a kernel runs; lives in a register."""

    def __init__(self, builder: ir.IRBuilder, value: Value) -> None:
        self._builder = builder
        self._slot = cgutils.alloca_once(builder, value.type)
        self.set(value)

    def get(self) -> Value:
        """The value now."""
        return self._builder.load(self._slot)

    def set(self, value: Value) -> None:
        """Change it."""
        self._builder.store(value, self._slot)


class Builder:
    """Emits vector instructions. A vector is ``V`` float32 lanes; integers and addresses are int64.

    Args:
        builder: where the instructions go.
    """

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.ir = builder

    # Integers and addresses

    def integer(self, value: Address) -> Value:
        """An int64 constant (a value is passed through)."""
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def plus(self, left: Address, right: Address) -> Value:
        """Left + right, int64."""
        return self.ir.add(self.integer(left), self.integer(right))

    def minus(self, left: Address, right: Address) -> Value:
        """Left - right, int64."""
        return self.ir.sub(self.integer(left), self.integer(right))

    def times(self, left: Address, right: Address) -> Value:
        """Left * right, int64."""
        return self.ir.mul(self.integer(left), self.integer(right))

    def steps(self, start: Address, stride: Value, count: int) -> list[Value]:
        """``count`` addresses, ``stride`` bytes apart."""
        return [self.plus(start, self.times(stride, index)) if index else start for index in range(count)]

    # Control

    def variable(self, value: Value) -> Variable:
        """A variable that starts with ``value``."""
        return Variable(self.ir, value)

    @contextmanager
    def loop(self, count: Address) -> Iterator[Value]:
        """A run-time loop over 0 .. count - 1; gives the index."""
        builder = self.ir
        index = self.variable(self.integer(0))
        body, done = builder.append_basic_block("body"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", self.integer(count), self.integer(0)), body, done)
        builder.position_at_end(body)
        now = index.get()
        yield now
        following = self.plus(now, 1)
        index.set(following)
        builder.cbranch(builder.icmp_signed("<", following, self.integer(count)), body, done)
        builder.position_at_end(done)

    # Memory. Only the alignment of a float is promised: it costs nothing where vectors happen to be aligned.

    def pointer(self, address: Address, of: ir.Type, offset: int = 0) -> Value:
        """An address plus a constant number of bytes as LLVM's pointer to a type."""
        return self.ir.inttoptr(self.plus(address, offset) if offset else self.integer(address), of.as_pointer())

    def load(self, address: Address, offset: int = 0) -> Value:
        """The vector at an address plus a constant number of bytes."""
        return self.ir.load(self.pointer(address, VECTOR, offset), align=4)

    def store(self, value: Value, address: Address, offset: int = 0) -> None:
        """Write a vector."""
        self.ir.store(value, self.pointer(address, VECTOR, offset), align=4)

    def load_all(self, address: Address, offset: int = 0) -> Value:
        """The float at an address in all lanes."""
        return self.splat(self.ir.load(self.pointer(address, F32, offset), align=4))

    def load_bits(self, address: Address, shift: Value, offset: int = 0) -> Value:
        """A mask: bit ``shift`` + j of the uint16 at an address for lane j."""
        word = self.ir.load(self.pointer(address, I16, offset), align=2)
        if V < 16:
            word = self.ir.trunc(self.ir.lshr(word, self.ir.trunc(shift, I16)), ir.IntType(V))
        return self.ir.bitcast(word, ir.VectorType(ir.IntType(1), V))

    def add_doubles(self, value: Value, address: Address) -> None:
        """Add a vector to the ``V`` float64 at an address."""
        pointer = self.pointer(address, DOUBLES)
        total = self.ir.fadd(self.ir.load(pointer, align=8), self.ir.fpext(value, DOUBLES))
        self.ir.store(total, pointer, align=8)

    # Lanes

    def splat(self, scalar: Value) -> Value:
        """A scalar in all lanes."""
        nothing = ir.Constant(VECTOR, ir.Undefined)
        first = self.ir.insert_element(nothing, scalar, ir.Constant(I32, 0))
        return self.ir.shuffle_vector(first, nothing, ir.Constant(INTEGERS, [0] * V))

    def constant(self, value: float) -> Value:
        """A constant in all lanes."""
        return ir.Constant(VECTOR, [value] * V)

    def integers(self, value: int) -> Value:
        """An int32 constant in all lanes."""
        return ir.Constant(INTEGERS, [value] * V)

    def as_integers(self, value: Value) -> Value:
        """The bits of a vector as int32."""
        return self.ir.bitcast(value, INTEGERS)

    def as_floats(self, value: Value) -> Value:
        """The bits of int32 lanes as a vector."""
        return self.ir.bitcast(value, VECTOR)

    def shuffle(self, left: Value, right: Value, lanes: Sequence[int]) -> Value:
        """Chosen lanes: 0 .. V - 1 of ``left``, V .. 2 V - 1 of ``right``."""
        return self.ir.shuffle_vector(left, right, ir.Constant(INTEGERS, list(lanes)))

    # Arithmetic

    def _intrinsic(self, name: str, kind: ir.FunctionType) -> ir.Function:
        module = self.ir.module
        return module.globals.get(name) or ir.Function(module, kind, name)

    def _call(self, name: str, *values: Value) -> Value:
        kind = ir.FunctionType(VECTOR, [VECTOR] * len(values))
        return self.ir.call(self._intrinsic(f"llvm.{name}.v{V}f32", kind), values)

    def fma(self, left: Value, right: Value, addend: Value) -> Value:
        """Left * right + addend, rounded once."""
        return self._call("fma", left, right, addend)

    def add(self, left: Value, right: Value) -> Value:
        """Left + right."""
        return self.ir.fadd(left, right)

    def sub(self, left: Value, right: Value) -> Value:
        """Left - right."""
        return self.ir.fsub(left, right)

    def mul(self, left: Value, right: Value) -> Value:
        """Left * right."""
        return self.ir.fmul(left, right)

    def div(self, left: Value, right: Value) -> Value:
        """Left / right."""
        return self.ir.fdiv(left, right)

    def negative(self, value: Value) -> Value:
        """-value."""
        return self.ir.fsub(self.constant(-0.0), value)

    def absolute(self, value: Value) -> Value:
        """|value|."""
        return self._call("fabs", value)

    def less(self, left: Value, right: Value) -> Value:
        """Left < right, a mask; false where one is NaN."""
        return self.ir.fcmp_ordered("<", left, right)

    def greater(self, left: Value, right: Value) -> Value:
        """Left > right, a mask; false where one is NaN."""
        return self.ir.fcmp_ordered(">", left, right)

    def equal(self, left: Value, right: Value) -> Value:
        """Left == right, a mask; false where one is NaN."""
        return self.ir.fcmp_ordered("==", left, right)

    def select(self, mask: Value, yes: Value, no: Value) -> Value:
        """``yes`` where the mask is set, else ``no``."""
        return self.ir.select(mask, yes, no)

    def maximum(self, left: Value, right: Value) -> Value:
        """The larger; ``right`` where one is NaN, so a NaN on the right stays. One instruction on x86."""
        return self.select(self.greater(left, right), left, right)

    def minimum(self, left: Value, right: Value) -> Value:
        """The smaller; ``right`` where one is NaN, so a NaN on the right stays. One instruction on x86."""
        return self.select(self.less(left, right), left, right)


def lane_sums(k: Builder, vectors: Sequence[Value | None]) -> Value:
    """The sum over the lanes of each of up to ``V`` vectors: lane j holds that of the j-th (None: zero).

    A butterfly: at width w, two vectors whose sums are still spread over blocks of w lanes are merged into one.
    """
    zero = k.constant(0.0)
    rows = [zero if vector is None else vector for vector in vectors]
    rows += [zero] * (V - len(rows))
    width = 1
    while len(rows) > 1:
        kept = [lane if not lane & width else V + (lane ^ width) for lane in range(V)]
        moved = [lane ^ width if not lane & width else V + lane for lane in range(V)]
        rows = [
            k.add(k.shuffle(left, right, kept), k.shuffle(left, right, moved))
            for left, right in zip(rows[::2], rows[1::2], strict=True)
        ]
        width *= 2
    return rows[0]
