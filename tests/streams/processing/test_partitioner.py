"""Keys go where every other Kafka client sends them."""

import pytest
from aiokafka import partitioner as oracle
from hypothesis import given
from hypothesis import strategies as st

from streams.processing.partitioner import murmur2, partition_of


@given(st.binary(max_size=40))
def test_murmur2_is_kafkas(data):
    assert murmur2(data) == oracle.murmur2(data) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("key", "signed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_murmur2_gives_the_values_of_kafkas_own_test(key, signed):
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.binary(min_size=1, max_size=40), st.integers(1, 50))
def test_a_key_goes_where_aiokafka_sends_it(key, partitions):
    choose = oracle.DefaultPartitioner()
    assert partition_of(key, partitions) == choose(key, list(range(partitions)), list(range(partitions)))
