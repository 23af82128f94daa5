"""Inserts a file of events into ClickHouse's engine in this process (chdb), one INSERT a batch.

Usage: clickhouse.py FILE DIRECTORY ROWS. Prints one JSON object: rows, seconds, cpu_seconds and
peak_bytes of the inserts. The file is read and cut before the clock starts.
"""

import json
import resource
import sys
import time

from chdb import session

file, directory, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
lines = open(file).read().splitlines(keepends=True)
batches = ["".join(lines[at : at + rows]) for at in range(0, len(lines), rows)]
del lines

clickhouse = session.Session(directory)
clickhouse.query("CREATE DATABASE lab ENGINE = Atomic")
clickhouse.query(
    """
    CREATE TABLE lab.events (
        message_id String,
        tenant LowCardinality(String),
        type LowCardinality(String),
        event Nullable(String),
        timestamp DateTime64(6),
        user_id Nullable(String),
        anonymous_id Nullable(String),
        session_id Nullable(String),
        url Nullable(String),
        referrer Nullable(String),
        user_agent Nullable(String),
        properties Nullable(String),
        context Nullable(String)
    ) ENGINE = MergeTree ORDER BY (tenant, timestamp)
    """
)
head = (
    "INSERT INTO lab.events SETTINGS date_time_input_format = 'best_effort', "
    "input_format_json_read_objects_as_strings = 1 FORMAT JSONEachRow\n"
)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


cpu, start = cpu_seconds(), time.monotonic()
for batch in batches:
    clickhouse.query(head + batch)
seconds, cpu = time.monotonic() - start, cpu_seconds() - cpu
count = int(clickhouse.query("SELECT count() FROM lab.events", "CSV").data())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"rows": count, "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}))
