"""Tables mark what changes, and nothing else."""

from engines.state.tables import RecordTable


def test_a_stored_and_a_deleted_record_are_touched():
    touched = {}
    books = RecordTable("books", touched)
    books.put(("main",), 1)
    assert (books, touched) == ({("main",): 1}, {("books", ("main",)): None})
    touched.clear()
    books.drop(("main",))
    assert (books, touched) == ({}, {("books", ("main",)): None})


def test_reading_and_deleting_what_is_not_there_touch_nothing():
    touched = {}
    books = RecordTable("books", touched)
    books.drop(("main",))
    assert books.get(("main",)) is None
    assert touched == {}


def test_tables_of_one_state_share_what_is_touched():
    touched = {}
    RecordTable("books", touched).put(("a",), 1)
    RecordTable("targets", touched).put(("a", "s", "x"), 2)
    assert list(touched) == [("books", ("a",)), ("targets", ("a", "s", "x"))]
