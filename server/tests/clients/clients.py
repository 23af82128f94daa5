"""Sends every kind of event of one SDK to a server: clients.py SDK URL.

The SDK's own errors end up on standard error and in the exit code.
"""

import datetime
import logging
import sys

NAME, URL = sys.argv[1:]
WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
PAGE = {"url": "https://shop.example/home", "referrer": "https://search.example/"}
failures = []


def segment():
    import segment.analytics as segment

    segment.write_key, segment.host = "key", URL
    segment.on_error = lambda error, items: failures.append(error)
    spec(segment, timestamp=WHEN)


def rudderstack():
    import rudderstack.analytics as rudder

    rudder.write_key, rudder.dataPlaneUrl = "key", URL
    rudder.on_error = lambda error, items: failures.append(error)
    spec(rudder)


def spec(client, **arguments):
    client.track("u1", "Bought", {"plan": "pro"}, **arguments)
    client.identify("u1", {"email": "a@b.example"})
    client.page("u1", "Docs", "Home", PAGE)
    client.screen("u1", "Shop", "Cart", {})
    client.group("u1", "g1", {"size": 3})
    client.alias("u1", "u2")
    client.flush()


def posthog():
    from posthog import Posthog

    client = Posthog("key", host=URL, on_error=lambda error, items: failures.append(error))
    client.capture("Bought", distinct_id="u1", properties={"plan": "pro"}, timestamp=WHEN)
    client.set(distinct_id="u1", properties={"email": "a@b.example"})
    client.alias("u1", "u2")
    client.group_identify("company", "g1", {"size": 3}, distinct_id="u1")
    client.capture("$pageview", distinct_id="u1", properties={"$current_url": PAGE["url"]})
    client.shutdown()


def snowplow():
    from snowplow_tracker import Emitter, PageView, StructuredEvent, Subject, Tracker

    protocol, host = URL.split("://")
    host, port = host.split(":")
    for method in ["post", "get"]:
        emitter = Emitter(host, protocol=protocol, port=int(port), method=method, batch_size=1)
        subject = Subject().set_user_id("u1")
        tracker = Tracker("shop", emitter, app_id="app", subject=subject)
        tracker.track(PageView(page_url=PAGE["url"], page_title="Home", referrer=PAGE["referrer"]))
        tracker.track(StructuredEvent(category="shop", action="Bought", value=1.5))
        tracker.flush()


def opentelemetry():
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    for compression in [Compression.NoCompression, Compression.Gzip]:
        provider = LoggerProvider()
        exporter = OTLPLogExporter(endpoint=f"{URL}/v1/logs", compression=compression)
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        logger = logging.Logger("shop")
        logger.addHandler(LoggingHandler(logger_provider=provider))
        logger.warning("Bought", extra={"user.id": "u1", "plan": "pro"})
        provider.shutdown()


globals()[NAME]()
if failures:
    sys.exit(f"{NAME}: {failures}")
