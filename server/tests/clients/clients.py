"""Sends every kind of event of one SDK to a server: clients.py SDK URL [KEY].

The SDK's own errors end up on standard error and in the exit code.
"""

import datetime
import logging
import sys
import threading

NAME, URL = sys.argv[1:3]
KEY = sys.argv[3] if len(sys.argv) > 3 else "key"
WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
# Longer than anything takes, in seconds.
PATIENCE = 120
PAGE = {"url": "https://shop.example/home", "referrer": "https://search.example/"}
failures = []


def segment():
    import segment.analytics as segment

    segment.write_key, segment.host = KEY, URL
    spec(segment)


def rudderstack():
    import rudderstack.analytics as rudder

    rudder.write_key, rudder.dataPlaneUrl = KEY, URL
    spec(rudder)


def spec(client):
    client.on_error = lambda error, items: failures.append(error)
    client.track("u1", "Bought", {"plan": "pro"}, timestamp=WHEN)
    client.identify("u1", {"email": "a@b.example"})
    client.page(None, "Docs", "Home", PAGE, anonymous_id="a1", timestamp=WHEN)
    client.screen("u1", "Shop", "Cart", {})
    client.group("u1", "g1", {"size": 3}, timestamp=WHEN)
    client.alias("u1", "u2")
    client.flush()


def posthog():
    from posthog import Posthog

    client = Posthog(KEY, host=URL, on_error=lambda error, items: failures.append(error))
    client.capture("Bought", distinct_id="u1", properties={"plan": "pro"}, timestamp=WHEN)
    client.set(distinct_id="u1", properties={"email": "a@b.example"})
    client.alias("u1", "u2")
    client.group_identify("company", "g1", {"size": 3}, distinct_id="u1")
    page = {"$current_url": PAGE["url"], "$referrer": PAGE["referrer"]}
    page |= {"$session_id": "s1", "$device_id": "a1"}
    client.capture("$pageview", distinct_id="u1", properties=page, timestamp=WHEN)
    client.shutdown()


def snowplow():
    import snowplow_tracker as sp

    def described(name, data):
        return sp.SelfDescribingJson(f"iglu:com.acme/{name}/jsonschema/1-0-0", data)

    view = {"page_url": PAGE["url"], "page_title": "Home", "referrer": PAGE["referrer"]}
    told = int(WHEN.timestamp() * 1000)
    screen = "0a1b2c3d-0000-4000-8000-000000000001"
    protocol, host = URL.split("://")
    host, port = host.split(":")
    for method in ["post", "get"]:
        events = [
            sp.PageView(**view, true_timestamp=told),
            sp.StructuredEvent(category="shop", action="Bought", value=1.5, true_timestamp=told),
            sp.PagePing(**view, max_y=70),
            sp.ScreenView(id_=screen, name="Cart"),
            sp.SelfDescribing(described("subscribed", {"plan": "pro"})),
        ]
        size = len(events) if method == "post" else 1
        arrived = threading.Semaphore(0)
        emitter = sp.Emitter(
            host, protocol=protocol, port=int(port), method=method, batch_size=size,
            on_success=lambda sent: arrived.release(len(sent)),
            on_failure=lambda sent, unsent: print("failed:", unsent, file=sys.stderr),
        )
        subject = sp.Subject().set_user_id("u1").set_domain_user_id("a1")
        subject.set_domain_session_id("s1")
        tracker = sp.Tracker("shop", emitter, app_id="app", subject=subject)
        for number, event in enumerate(events, 1):
            event.context = [described("cart", {"title": "Grüße"})]
            tracker.track(event)
            # What could not be delivered is sent again by a timer.
            for _ in range(size if number % size == 0 else 0):
                if not arrived.acquire(timeout=PATIENCE):
                    sys.exit(f"failed: {event} has not arrived")


def opentelemetry():
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    for compression in [Compression.NoCompression, Compression.Gzip]:
        provider = LoggerProvider()
        exporter = OTLPLogExporter(
            endpoint=f"{URL}/v1/logs", compression=compression, timeout=PATIENCE,
            headers={"Authorization": f"Bearer {KEY}"},
        )
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        logger = logging.Logger("shop")
        logger.addHandler(LoggingHandler(logger_provider=provider))
        logger.warning("Bought", extra={"user.id": "u1", "plan": "pro"})
        provider.get_logger("shop", "1.0").emit(
            timestamp=int(WHEN.timestamp() * 1e9), event_name="Bought", body={"plan": "pro"},
            severity_text="INFO", attributes={"user.id": "u1", "session.id": "s1"},
        )
        provider.force_flush()
        provider.shutdown()


globals()[NAME]()
if failures:
    sys.exit(f"{NAME}: failed: {failures}")
