"""Claims about the language of expressions."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import Expression, ExpressionError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-2^2", -4), ("2^3^2", 512), ("2**-1", 0.5), ("1 - 2 - 3", -4), ("8/4/2", 1),
        ("-x^2", -9), ("2*-x", -6), ("sin(pi*x)", np.sin(3 * np.pi)), ("max(x, 5) - min(x, 1)", 4),
        ("e^log(x)", 3), ("1e-3*.5", 5e-4), ("--x", 3), ("sqrt(abs(-x))", np.sqrt(3)),
    ],
)  # fmt: skip
def test_precedence_and_functions_are_those_of_mathematics(text, value):
    np.testing.assert_allclose(Expression(text)({"x": np.float64(3)}), value, rtol=1e-15)


def test_integer_powers_differentiate_where_the_base_is_negative():
    cubic = Expression("x^3 - x^-2")
    slope = jax.grad(lambda x: cubic({"x": x}, jnp))(-2.0)
    np.testing.assert_allclose(slope, 3 * 4 + 2 * (-2.0) ** -3)


def test_names_are_what_must_be_given():
    assert Expression("u_t + u*u_x - nu*u_xx + pi").names == {"u", "u_t", "u_x", "u_xx", "nu"}


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("__import__('os')", 1, "did not expect '_'"), ("x.real", 2, "did not expect '.'"),
        ("x[0]", 2, "did not expect '['"), ("lambda x: x", 8, "did not expect 'x'"),
        ("1 +", 4, "ends too early"), ("(1", 3, "ends too early"), ("", 1, "ends too early"),
        ("sim(x)", 1, "there is no function 'sim'"), ("sin(x, x)", 1, "takes 1 argument"),
        ("1 + laplacian(2*u)", 5, "takes the name of one unknown"),
        ("x; y", 2, "did not expect ';'"), ("x := 1", 3, "did not expect ':'"),
        ("'a'", 1, "did not expect"), ("x if x else x", 3, "did not expect"),
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused_with_its_column(text, column, message):
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert message in caught.value.message
    assert caught.value.column == column


def test_vectors_are_reduced_over_their_components():
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # three components at two points
    np.testing.assert_allclose(Expression("sum(x^2) + y")({"x": x, "y": np.ones(2)}), [36, 57])
    np.testing.assert_allclose(Expression("prod(x)/mean(x)")({"x": x}, jnp), [5, 12])
    assert Expression("laplacian(u) - u_t").names == {"laplacian(u)", "u_t"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sum(x) + x", "stands outside"), ("sum(2*s)", "no vector in sum(...)"),
        ("mean(x*y)", "vectors of 2 and 3 components meet"), ("sum(sum(x)*x)", ""),
        ("sin(-x)", "stands outside"), ("prod(max(x, s))", ""), ("sum(sum(x))", "no vector"),
    ],
)  # fmt: skip
def test_a_vector_must_become_a_number(text, message):
    found = Expression(text).misuse_of_vectors({"x": 2, "y": 3})
    assert message in found
    assert bool(message) == bool(found)


def test_a_misspelt_function_is_told_the_right_one():
    with pytest.raises(ExpressionError, match="did you mean 'sqrt'"):
        Expression("sqr(x)")


@pytest.mark.parametrize("text", ["9^9^9^9^9", "1/0", "1e999", "log(-1)", "exp(exp(exp(9)))"])
def test_a_constant_that_is_not_finite_is_refused_at_once(text):
    before = time.perf_counter()
    with pytest.raises(ExpressionError):
        Expression(text).constant()
    assert time.perf_counter() - before < 0.5


@pytest.mark.parametrize(
    "text", ["(" * 1_000_000, "(" * 3000 + "1" + ")" * 3000, "-" * 10_000 + "1", "x" * 10_000]
)
def test_what_is_too_long_or_too_deep_is_refused_at_once(text):
    before = time.perf_counter()
    with pytest.raises(ExpressionError):
        Expression(text)
    assert time.perf_counter() - before < 0.5


def test_long_chains_within_the_limit_evaluate_without_recursion():
    assert Expression("1" + "+1" * 1900).constant() == 1901
    assert Expression("-" * 3001 + "1").constant() == -1


formulas = st.recursive(
    st.sampled_from(["x", "y", "2", "0.5", "pi"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        inner.map(lambda p: f"sin({p})"),
        inner.map(lambda p: f"(-{p})"),
    ),
    max_leaves=12,
)


@given(formulas)
def test_agrees_with_pythons_own_arithmetic(text):
    values = {"x": np.float64(0.3), "y": np.float64(-1.7)}
    # The oracle may use eval: the text is made here, of numbers and operators.
    expected = eval(text, {"sin": np.sin, "pi": np.pi, **values})
    np.testing.assert_allclose(Expression(text)(values), expected, rtol=1e-12)
    np.testing.assert_allclose(Expression(text)(values, jnp), expected, rtol=1e-12)
