"""A worker of the decision version after this code's, run as a process of its own.

python tests/broker/successor.py SETTINGS.yaml
"""

import asyncio
import logging
import os
import sys
from typing import NoReturn

from config.load import load
from engines.allocation import DECISION_VERSION
from streams.journal.topics import Names
from streams.kafka.connection import Connection
from streams.kafka.journal_origin import origin
from streams.processing.clock import Clock
from streams.worker.run import leave
from streams.worker.worker import Worker


async def main() -> NoReturn:
    settings = load(sys.argv[1], os.environ).settings
    connection = Connection(settings.kafka.bootstrap_servers)
    began = await origin(connection, Names(settings.topics.prefix), settings.topics.partitions)
    worker = Worker(settings, connection, clock=Clock().now_ns, embedded=True, began=began, epochs_known={})
    migrations = {(DECISION_VERSION, DECISION_VERSION + 1): lambda meta, records: (meta, records)}
    worker.context = worker.context._replace(version=DECISION_VERSION + 1, migrations=migrations)
    leave(await worker.run())


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, format="%(name)s %(levelname)s %(message)s")
    asyncio.run(main())
