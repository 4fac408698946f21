"""Overrides: a sorted tuple that behaves as a dictionary does."""

from hypothesis import given
from hypothesis import strategies as st

from engines.state.overrides import NONE, changed, count_of, word_of

scopes = st.sampled_from(
    ["all", *(f"{kind}:{name}" for kind in ("portfolio", "strategy", "symbol") for name in "ab:c")]
)
words = st.sampled_from(["HALTED", "REDUCING", None])


@given(st.lists(st.tuples(scopes, words)))
def test_it_is_a_dictionary_in_order(changes):
    overrides, wanted = NONE, {}
    for scope, word in changes:
        overrides = changed(overrides, scope, word)
        wanted = {key: value for key, value in {**wanted, scope: word}.items() if value is not None}
        assert overrides == tuple(sorted(wanted.items()))
    for scope in ("all", "portfolio:a", "symbol:zzz"):
        assert word_of(overrides, scope) == wanted.get(scope)
    for kind in ("portfolio", "strategy", "symbol"):
        assert count_of(overrides, kind) == sum(scope.startswith(f"{kind}:") for scope in wanted)
