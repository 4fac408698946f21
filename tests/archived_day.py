"""A short day of three portfolios, archived; and a manifest chained anew, as somebody would who knows how."""

import asyncio
import hashlib

import orjson
from worlds import SYMBOLS, Driver, priced, signal

from streams.archives.archiver import Archiver, Closed
from streams.archives.files import ArchivedRecord
from streams.archives.manifest import NAME, Manifest
from streams.journal import entries as journal

ID = "DRIVER22"


def day() -> dict[str, list[ArchivedRecord]]:
    """Return journal and allocations of a short day of three portfolios on one partition, as Kafka keeps them."""
    driver = priced(Driver(partitions=1))
    for number in range(12):
        given_ = {"symbol": SYMBOLS[number % 3], "portfolio_id": f"p{number % 3}", "signal_id": f"s-{number}"}
        driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, **given_))
        driver.advance(1.0)
    found = {}
    for topic in (journal.TOPIC, "allocations"):
        records = driver.cluster.log(topic, 0).read(0)
        found[topic] = [ArchivedRecord(r.offset, 1_000 + r.offset, r.key, r.value, (("v", b"1"),)) for r in records]
    return found


DAY = day()
END = len(DAY[journal.TOPIC])


class Logs:
    """A cluster's partition, as far as it is still there."""

    def __init__(self, topics, first=0):
        self.topics, self.first = topics, first

    async def chunks(self, topic, _partition, first, end):
        found = [each for each in self.topics[topic] if max(first, self.first) <= each.offset < end]
        for start in range(0, len(found), 5):
            yield found[start : start + 5]


def archived(folder, topics=DAY, *, entries=8, rest=False, upto=END):
    manifest = Manifest.begun(folder, ID, 1, 1)
    archiver = Archiver(folder, manifest, entries=entries, rest=rest)
    return asyncio.run(archiver.partition(Logs(topics), 0, Closed(upto, len(topics["allocations"]))))


def read_lines(folder):
    """Return the fields of each line of a manifest."""
    return [orjson.loads(line) for line in (folder / NAME).read_bytes().splitlines()]


def chained(folder, fields):
    """Write a manifest whose chain holds, whatever its lines say."""
    previous, found = "", []
    for each in fields:
        line = orjson.dumps({**each, "previous": previous}, option=orjson.OPT_SORT_KEYS)
        previous = hashlib.sha256(line).hexdigest()
        found.append(line + b"\n")
    (folder / NAME).write_bytes(b"".join(found))
