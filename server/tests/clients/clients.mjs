// Sends every kind of event of one SDK to a server: node clients.mjs SDK URL MODULES [KEY].
// The SDK's own errors end up on standard error and in the exit code.
import { createRequire } from "node:module";
import { setTimeout as pause } from "node:timers/promises";

const [name, url, modules, key = "key:secret"] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const failed = (error) => {
  console.error("failed:", error);
  process.exitCode = 1;
};
const when = new Date("2026-01-02T03:04:05Z");
// Longer than anything takes, in milliseconds.
const patience = 120_000;
const page = { url: "https://shop.example/home", referrer: "https://search.example/" };

// The calls of Segment's spec; `told` is what tells a time.
const spec = (client, told) => [
  () => client.track({ userId: "u1", event: "Bought", properties: { plan: "pro" }, ...told }),
  () => client.identify({ userId: "u1", traits: { email: "a@b.example" } }),
  () => client.page({
    anonymousId: "a1", name: "Home", category: "Docs", properties: page, ...told,
  }),
  () => client.screen({ userId: "u1", name: "Cart", category: "Shop" }),
  () => client.group({ userId: "u1", groupId: "g1", traits: { size: 3 }, ...told }),
  () => client.alias({ userId: "u2", previousId: "u1" }),
];

const sdks = {
  async segment() {
    const { Analytics } = require("@segment/analytics-node");
    const segment = new Analytics({ writeKey: key, host: url, flushAt: 6, maxRetries: 5 });
    segment.on("error", failed);
    spec(segment, { timestamp: when }).forEach((call) => call());
    await segment.closeAndFlush({ timeout: patience });
  },

  async rudderstack() {
    const module = require("@rudderstack/rudder-sdk-node");
    const rudder = new (module.default ?? module)(key, { dataPlaneUrl: url, flushAt: 100 });
    const flush = () => new Promise((done) => rudder.flush((error) => done(error && failed(error))));
    // It adds the time of the call as `originalTimestamp` unless it is told that as well.
    const [first, ...others] = spec(rudder, { timestamp: when, originalTimestamp: when });
    // The first event is sent at once, the others by the flush.
    first();
    await flush();
    others.forEach((call) => call());
    await flush();
  },

  async jitsu() {
    const { jitsuAnalytics } = require("@jitsu/js");
    // It refuses keys without a colon.
    const writeKey = key.includes(":") ? key : `${key}:x`;
    for (const s2s of [false, true]) {
      const jitsu = jitsuAnalytics({ host: url, s2s, writeKey });
      await jitsu.setAnonymousId("a1");
      await jitsu.identify("u1", { email: "a@b.example" });
      await jitsu.track("Bought", { plan: "pro" });
      await jitsu.page({ name: "Home", ...page });
      await jitsu.group("g1", { size: 3 });
    }
  },

  async posthog() {
    const { PostHog } = require("posthog-node");
    const posthog = new PostHog(key, { host: url, flushAt: 20, fetchRetryDelay: 100 });
    posthog.on("error", failed);
    posthog.capture({
      distinctId: "u1", event: "Bought", properties: { plan: "pro" }, timestamp: when,
    });
    posthog.identify({ distinctId: "u1", properties: { email: "a@b.example" } });
    posthog.alias({ distinctId: "u1", alias: "u2" });
    posthog.groupIdentify({ groupType: "company", groupKey: "g1", properties: { size: 3 } });
    posthog.capture({
      distinctId: "u1", event: "$pageview", timestamp: when, properties: {
        $current_url: page.url, $referrer: page.referrer, $session_id: "s1", $device_id: "a1",
      },
    });
    posthog.capture({
      distinctId: "u1", event: "$screen", properties: { $screen_name: "Cart" },
    });
    await posthog.shutdown(patience);
  },

  async snowplow() {
    const snowplow = require("@snowplow/node-tracker");
    const schema = (name) => `iglu:com.acme/${name}/jsonschema/1-0-0`;
    const view = { pageUrl: page.url, pageTitle: "Home", referrer: page.referrer };
    const order = { orderId: "o1", currency: "EUR" };
    for (const eventMethod of ["post", "get"]) {
      for (const encodeBase64 of [true, false]) {
        let arrived = 0;
        const tracker = snowplow.newTracker(
          { namespace: "shop", appId: "app", encodeBase64 },
          {
            endpoint: url, eventMethod, bufferSize: 4, connectionTimeout: patience,
            onRequestSuccess: (events) => { arrived += events.length; },
            onRequestFailure: (failure) => console.error("failed:", failure.message),
          },
        );
        tracker.setUserId("u1");
        tracker.setDomainUserId("a1");
        tracker.setSessionId("s1");
        // The first by the true time, the second by the device's clock.
        const sent = [
          [snowplow.buildPageView(view), { type: "ttm", value: when.getTime() }],
          [snowplow.buildStructEvent({ category: "shop", action: "Bought", value: 1.5 }),
            when.getTime()],
          [snowplow.buildPagePing({ ...view, maxYOffset: 70 })],
          [snowplow.buildScreenView({ name: "Cart", id: "c1" })],
          [snowplow.buildLinkClick({ targetUrl: page.url, elementId: "buy" })],
          [snowplow.buildAddToCart({ sku: "p1", quantity: 2, unitPrice: 1.5 })],
          [snowplow.buildEcommerceTransaction({ ...order, total: 3 })],
          [snowplow.buildEcommerceTransactionItem({ ...order, sku: "p1", price: 1.5 })],
          [snowplow.buildSelfDescribingEvent({
            event: { schema: schema("subscribed"), data: { plan: "pro" } },
          })],
        ];
        for (const [event, told] of sent) {
          tracker.track(event, [{ schema: schema("cart"), data: { title: "Grüße" } }], told);
        }
        // What could not be delivered stays until the next flush.
        for (const until = Date.now() + patience; arrived < sent.length; await pause(20)) {
          if (Date.now() > until) throw new Error(`${arrived} of ${sent.length} have arrived`);
          await tracker.flush();
        }
      }
    }
  },

  async umami() {
    const { Umami } = require("@umami/node");
    const umami = new Umami({ websiteId: "site", hostUrl: url });
    const answers = [
      await umami.track({
        url: "/home", referrer: page.referrer, title: "Home", hostname: "shop.example",
      }),
      await umami.track("Bought", { plan: "pro" }),
      await umami.identify({ id: "u1", email: "a@b.example" }),
    ];
    answers.filter((answer) => answer.status !== 200).forEach(failed);
  },

  async plausible() {
    // The package is for browsers; this is all that it asks of one.
    globalThis.location = {
      href: page.url, hostname: "shop.example", pathname: "/home", protocol: "https:", hash: "",
    };
    globalThis.document = { referrer: page.referrer };
    globalThis.window = { innerWidth: 800 };
    const answers = [];
    globalThis.XMLHttpRequest = class {
      open(method, target) { Object.assign(this, { method, target, headers: {} }); }
      setRequestHeader(header, value) { this.headers[header] = value; }
      send(body) {
        const { method, headers } = this;
        answers.push(fetch(this.target, { method, headers, body }));
      }
    };
    const Plausible = require("plausible-tracker").default;
    const plausible = Plausible({ domain: "shop.example", apiHost: url, trackLocalhost: true });
    plausible.trackPageview();
    plausible.trackEvent("Bought", { props: { plan: "pro" } });
    for (const answer of await Promise.all(answers)) {
      if (answer.status !== 200) failed(await answer.text());
    }
  },

  async opentelemetry() {
    const { LoggerProvider, BatchLogRecordProcessor } = require("@opentelemetry/sdk-logs");
    const exporters = ["http", "proto"].map(
      (kind) => require(`@opentelemetry/exporter-logs-otlp-${kind}`).OTLPLogExporter,
    );
    for (const Exporter of exporters) {
      for (const compression of ["none", "gzip"]) {
        const exporter = new Exporter({
          url: `${url}/v1/logs`, compression, timeoutMillis: patience,
          headers: { Authorization: `Bearer ${key}` },
        });
        const processor = new BatchLogRecordProcessor({ exporter, exportTimeoutMillis: patience });
        const provider = new LoggerProvider({ processors: [processor] });
        provider.getLogger("shop", "1.0").emit({
          eventName: "Bought", timestamp: when, severityNumber: 9, severityText: "INFO",
          body: { plan: "pro" },
          attributes: {
            "user.id": "u1", "session.id": "s1", "url.full": page.url, n: 7, list: ["a", 1.5],
          },
        });
        await provider.forceFlush();
        await provider.shutdown();
      }
    }
  },
};

await sdks[name]().catch(failed);
