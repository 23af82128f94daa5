"""Reads the table at argv[1] with every engine that is installed, in version argv[3] or the newest,
and the Arrow stream at argv[2] beside it; prints one JSON object with what each has seen.

An engine is a function that gives COLUMNS of all rows as something pyarrow knows."""

import faulthandler, hashlib, importlib, json, os, sys

# Nothing here is to tell anybody on the network that it runs, or to wait for that.
os.environ |= {"DO_NOT_TRACK": "true", "DAFT_ANALYTICS_ENABLED": "0", "SCARF_NO_ANALYTICS": "true"}

import deltalake, pyarrow, pyarrow.compute

COLUMNS = [
    "shard", "sequence", "tenant", "type", "event", "user_id", "url", "properties",
    "timestamp", "received_at", "date", "title", "load_ms",
]

# An engine that hangs is shown where it does.
faulthandler.dump_traceback_later(120, exit=True)
path, ours = sys.argv[1:3]
version = int(sys.argv[3]) if len(sys.argv) > 3 else None
table = deltalake.DeltaTable(path, version=version)
# chdb reads nothing outside of it.
os.chdir(os.path.dirname(path))
engines = {}


def engine(read):
    engines[read.__name__] = read


@engine
def pyarrow_(module):
    return table.to_pyarrow_dataset().to_table(columns=COLUMNS)


@engine
def polars(module):
    return module.scan_delta(path, version=version).select(COLUMNS).collect().to_arrow()


@engine
def duckdb(module):
    # Its reader of Delta tables is an extension that is no part of the package.
    files = f"read_parquet({table.file_uris()!r}, hive_partitioning = true, union_by_name = true)"
    return module.sql(f"SELECT {', '.join(COLUMNS)} FROM {files}").to_arrow_table()


@engine
def daft(module):
    return module.read_deltalake(path, version=version).select(*COLUMNS).to_arrow()


@engine
def chdb(module):
    if version is not None:
        return None  # It reads the newest version only.
    sql = f"SELECT {', '.join(COLUMNS)} FROM deltaLakeLocal('{path}')"
    return pyarrow.ipc.open_file(module.query(sql, "Arrow").bytes()).read_all()


def plain(column):
    """The values as integers, texts and days, which all engines have in common."""
    if pyarrow.types.is_timestamp(column.type):
        column = column.cast(pyarrow.timestamp("us", column.type.tz)).cast(pyarrow.int64())
    return [value.decode() if isinstance(value, bytes) else value for value in column.to_pylist()]


def summary(seen):
    rows = sorted(zip(*(plain(seen[name]) for name in COLUMNS)))
    text = "\n".join(map(repr, rows))
    first = [str(value) for value in rows[0]] if rows else None
    return {"rows": len(rows), "digest": hashlib.sha256(text.encode()).hexdigest(), "first": first}


def pruning():
    """Bounds that the log tells, and what a reader makes of them: the files that it opens for events
    that arrived before those of the newest file."""
    actions = pyarrow.table(table.get_add_actions(flatten=True))
    newest = max(actions["min.received_at"].to_pylist())
    dataset = table.to_pyarrow_dataset()
    before = pyarrow.compute.field("received_at") < pyarrow.scalar(newest)
    return {
        "bounded": sorted(n[4:] for n in actions.column_names if n.startswith("min.")),
        "records": sum(actions["num_records"].to_pylist()),
        "files": len(list(dataset.get_fragments())),
        "opened": len(list(dataset.get_fragments(filter=before))),
        "rows_before": dataset.to_table(columns=["sequence"], filter=before).num_rows,
    }


seen, versions, missing = {}, {}, []
for name, read in engines.items():
    try:
        module = importlib.import_module(name.rstrip("_"))
    except ImportError:
        missing.append(name)
        continue
    versions[name] = module.__version__
    result = read(module)
    if result is not None:
        seen[name] = summary(result)

print(json.dumps({
    "version": table.version(),
    "files": len(table.file_uris()),
    "operation": table.history(1)[0]["operation"],
    "names": [field.name for field in table.schema().fields],
    "ours": summary(pyarrow.ipc.open_stream(ours).read_all()),
    "engines": seen,
    "versions": versions,
    "missing": missing,
    "pruning": pruning(),
}), flush=True)
# Some engines have threads that an orderly end would wait for.
os._exit(0)
