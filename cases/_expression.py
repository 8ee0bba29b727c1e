"""The language of expressions in a case: parsed by a grammar to a program for a stack machine.

Text from a stranger never reaches `eval`: a program can name values and the functions below, and
nothing else. It runs in a loop, so an expression cannot exhaust the interpreter's stack, and all
its numbers are floats, so that `9^9^9` is an overflow to be refused and not an hour's work.

This module imports neither JAX nor NumPy until an expression is evaluated.
"""

import functools
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

MAX_LENGTH = 4000
MAX_DEPTH = 60
# Powers up to here are products: x^3 must have derivatives where x is negative or zero.
MAX_INTEGER_POWER = 64

CONSTANTS = {"pi": math.pi, "e": math.e}

# Name in a case to name in the array module, and how many arguments.
FUNCTIONS = {
    "sin": ("sin", 1), "cos": ("cos", 1), "tan": ("tan", 1),
    "sinh": ("sinh", 1), "cosh": ("cosh", 1), "tanh": ("tanh", 1),
    "asin": ("arcsin", 1), "acos": ("arccos", 1), "atan": ("arctan", 1),
    "atan2": ("arctan2", 2),
    "exp": ("exp", 1), "log": ("log", 1), "sqrt": ("sqrt", 1), "erf": ("erf", 1),
    "abs": ("abs", 1), "sign": ("sign", 1), "min": ("minimum", 2), "max": ("maximum", 2),
    "sum": ("sum", 1), "mean": ("mean", 1), "prod": ("prod", 1),
}  # fmt: skip
# Over the components of a vector, which are along its first axis.
REDUCTIONS = {"sum", "mean", "prod"}
LAPLACIAN = "laplacian"

GRAMMAR = r"""
?sum: product
    | sum "+" product        -> add
    | sum "-" product        -> sub
?product: unary
    | product "*" unary      -> mul
    | product "/" unary      -> div
?unary: power
    | "-" unary              -> neg
    | "+" unary
?power: atom
    | atom ("^" | "**") unary -> pow
?atom: NUMBER                -> number
    | NAME                   -> name
    | NAME "(" sum ("," sum)* ")" -> call
    | "(" sum ")"
NUMBER: /(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?/
NAME: /[A-Za-z][A-Za-z0-9_]*/
%ignore /[ \t\n]+/
"""


class ExpressionError(ValueError):
    """An expression that cannot be read; `column` counts from 1."""

    def __init__(self, message: str, text: str, column: int | None = None, hint: str = ""):
        super().__init__(message)
        self.message, self.text, self.column, self.hint = message, text, column, hint

    def __str__(self) -> str:
        where = "" if self.column is None else f" at column {self.column}"
        shown = self.text if len(self.text) <= 80 else self.text[:77] + "..."
        return f"{self.message}{where} of {shown!r}" + (f"; {self.hint}" if self.hint else "")


Instruction = tuple[str, Any]


@functools.cache
def _parser():
    import lark

    # Each reduction joins its children's programs and appends its own instruction: reverse Polish
    # notation falls out of the bottom-up parse, and no tree is ever walked.
    class Program(lark.Transformer):
        def number(self, children):
            return (("number", float(children[0])),)

        def name(self, children):
            return (("name", children[0]),)

        def call(self, children):
            function, *arguments = children
            if function == LAPLACIAN and [[op for op, _ in a] for a in arguments] == [["name"]]:
                # A name like that of any derivative, and not a function of a value.
                return (("name", f"{LAPLACIAN}({arguments[0][0][1]})"),)
            return (*sum(arguments, ()), ("call", (function, len(arguments))))

    def apply(operation: str):
        return lambda self, children: (*sum(children, ()), (operation, None))

    for operation in ("neg", *_OPERATIONS):
        setattr(Program, operation, apply(operation))
    return lark.Lark(GRAMMAR, start="sum", parser="lalr", transformer=Program())


def _parse(text: str) -> tuple[Instruction, ...]:
    import lark

    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"an expression may have {MAX_LENGTH} characters, this one has {len(text)}", text
        )
    depth = 0
    for column, character in enumerate(text, start=1):
        depth += (character == "(") - (character == ")")
        if depth > MAX_DEPTH:
            raise ExpressionError(f"brackets nest deeper than {MAX_DEPTH}", text, column)
    try:
        return _parser().parse(text)  # pyright: ignore[reportReturnType]: the transformer's
    except lark.UnexpectedEOF:
        raise ExpressionError("the expression ends too early", text, len(text) + 1) from None
    except lark.UnexpectedToken as e:
        if e.token.type == "$END":
            raise ExpressionError("the expression ends too early", text, len(text) + 1) from None
        raise ExpressionError(f"did not expect {str(e.token)!r}", text, e.column) from None
    except lark.UnexpectedCharacters as e:
        shown = text[e.pos_in_stream or 0]
        raise ExpressionError(f"did not expect {shown!r}", text, e.column) from None


class Expression:
    """A formula over named values: `Expression("u_t + u*u_x - nu*u_xx")`.

    Operators are `+ - * /`, `^` and `**` (both are powers and associate to the right) and unary
    minus; constants `pi` and `e`; functions are those of `FUNCTIONS`. A derivative such as `u_xx`
    is a name like any other, and so is `laplacian(u)`. `sum`, `mean` and `prod` are over the
    components of the vectors in them.

    **Raises:** `ExpressionError`, which knows the column.

    ```python
    >>> from cases import Expression
    >>> wave = Expression("-sin(pi*x) + 2^-1")
    >>> sorted(wave.names)
    ['x']
    >>> wave({"x": 0.5})
    np.float64(-0.5)
    >>> Expression("0.01/pi").constant()
    0.003183098861837907

    ```
    """

    __slots__ = ("names", "program", "text")

    def __init__(self, text: str | float):
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ExpressionError("expected a number or an expression", str(text))
        self.text = text if isinstance(text, str) else repr(text)
        self.program = _parse(self.text)
        self.names = frozenset(
            str(value) for op, value in self.program if op == "name" and value not in CONSTANTS
        )
        self._check()

    def _check(self) -> None:
        for op, value in self.program:
            if op == "number" and not math.isfinite(value):
                raise ExpressionError("a number is too large", self.text)
            if op == "call":
                name, count = value
                column = getattr(name, "column", None)
                if name == LAPLACIAN:
                    raise ExpressionError(
                        f"{LAPLACIAN} takes the name of one unknown", self.text, column,
                        f"as in {LAPLACIAN}(u)",
                    )  # fmt: skip
                if name not in FUNCTIONS:
                    close = get_close_matches(name, FUNCTIONS, n=1)
                    hint = f"did you mean {close[0]!r}?" if close else ""
                    raise ExpressionError(
                        f"there is no function {str(name)!r}", self.text, column, hint
                    )
                if count != FUNCTIONS[name][1]:
                    raise ExpressionError(
                        f"{name} takes {FUNCTIONS[name][1]} argument(s), got {count}",
                        self.text, column,
                    )  # fmt: skip

    def __call__(self, values: Mapping[str, Any], xp: Any = None) -> Any:
        """Evaluate with the array module `xp`: NumPy if not given, or `jax.numpy`."""
        if xp is None:
            import numpy as xp
        stack: list[Any] = []
        for op, value in self.program:
            if op == "number":
                stack.append(value)
            elif op == "name":
                stack.append(CONSTANTS[value] if value in CONSTANTS else values[str(value)])
            elif op == "neg":
                stack.append(-stack.pop())
            elif op == "call":
                function, count = FUNCTIONS[value[0]]
                arguments = stack[len(stack) - count :]
                del stack[len(stack) - count :]
                over = {"axis": 0} if function in REDUCTIONS else {}
                stack.append(_function(function, xp)(*arguments, **over))
            else:
                right, left = stack.pop(), stack.pop()
                stack.append(_OPERATIONS[op](left, right, xp))
        return xp.asarray(stack.pop())[()]

    def misuse_of_vectors(self, sizes: Mapping[str, int]) -> str:
        """What is wrong with how vectors stand in the expression, given their numbers of
        components; nothing if it is a number at every point."""
        stack: list[set[int]] = []
        for op, value in self.program:
            if op == "number":
                stack.append(set())
            elif op == "name":
                stack.append({sizes[value]} if value in sizes else set())
            elif op != "neg":
                count = value[1] if op == "call" else 2
                found = set().union(*stack[len(stack) - count :])
                del stack[len(stack) - count :]
                if len(found) > 1:
                    return f"vectors of {' and '.join(map(str, sorted(found)))} components meet"
                if op == "call" and value[0] in REDUCTIONS:
                    if not found:
                        return f"there is no vector in {value[0]}(...)"
                    found = set()
                stack.append(found)
        used = ", ".join(sorted(self.names & set(sizes)))
        return f"the vector {used} stands outside of sum, mean and prod" if stack.pop() else ""

    def constant(self) -> float:
        """The value of an expression without names.

        **Raises:** `ExpressionError` if it has names, or is not a finite number.
        """
        if self.names:
            raise ExpressionError(f"expected a constant, found {min(self.names)!r}", self.text)
        import numpy as np

        if message := self.misuse_of_vectors({}):
            raise ExpressionError(message, self.text)
        with np.errstate(all="ignore"):
            value = float(self({}, np))
        if not math.isfinite(value):
            raise ExpressionError(f"the value is {value}", self.text)
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def _function(name: str, xp: Any) -> Any:
    if name != "erf":
        return getattr(xp, name)
    # Neither array module has it; each has a SciPy beside it.
    from importlib import import_module

    return import_module("scipy.special" if xp.__name__ == "numpy" else "jax.scipy.special").erf


def _power(left: Any, right: Any, xp: Any) -> Any:
    if isinstance(right, float) and right.is_integer() and abs(right) <= MAX_INTEGER_POWER:
        return xp.asarray(left) ** int(right)
    return xp.power(left, right)


# Through the array module even for two floats, for which Python would raise where arrays give inf.
_OPERATIONS = {
    "add": lambda left, right, xp: left + right,
    "sub": lambda left, right, xp: left - right,
    "mul": lambda left, right, xp: left * right,
    "div": lambda left, right, xp: xp.divide(left, right),
    "pow": _power,
}
