// Sends every kind of event of one SDK to a server: node clients.mjs SDK URL MODULES.
// The SDK's own errors end up on standard error and in the exit code.
import { createRequire } from "node:module";

const [name, url, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const failed = (error) => {
  console.error(error);
  process.exitCode = 1;
};
const when = new Date("2026-01-02T03:04:05Z");
const page = { url: "https://shop.example/home", referrer: "https://search.example/" };

const sdks = {
  async segment() {
    const { Analytics } = require("@segment/analytics-node");
    const segment = new Analytics({ writeKey: "key", host: url, flushAt: 6, maxRetries: 5 });
    segment.on("error", failed);
    segment.track({ userId: "u1", event: "Bought", properties: { plan: "pro" }, timestamp: when });
    segment.identify({ userId: "u1", traits: { email: "a@b.example" } });
    segment.page({ anonymousId: "a1", name: "Home", category: "Docs", properties: page });
    segment.screen({ userId: "u1", name: "Cart" });
    segment.group({ userId: "u1", groupId: "g1", traits: { size: 3 } });
    segment.alias({ userId: "u2", previousId: "u1" });
    await segment.closeAndFlush();
  },

  async rudderstack() {
    const module = require("@rudderstack/rudder-sdk-node");
    const rudder = new (module.default ?? module)("key", { dataPlaneUrl: url, flushAt: 100 });
    const flush = () => new Promise((done) => rudder.flush((error) => done(error && failed(error))));
    // The first event is sent at once, the others by the flush.
    rudder.track({ userId: "u1", event: "Bought", properties: { plan: "pro" } });
    await flush();
    rudder.identify({ userId: "u1", traits: { email: "a@b.example" } });
    rudder.page({ anonymousId: "a1", name: "Home", category: "Docs", properties: page });
    rudder.screen({ userId: "u1", name: "Cart" });
    rudder.group({ userId: "u1", groupId: "g1", traits: { size: 3 } });
    rudder.alias({ userId: "u2", previousId: "u1" });
    await flush();
  },

  async jitsu() {
    const { jitsuAnalytics } = require("@jitsu/js");
    for (const s2s of [false, true]) {
      const jitsu = jitsuAnalytics({ host: url, writeKey: "key:secret", s2s });
      await jitsu.track("Bought", { plan: "pro" });
      await jitsu.identify("u1", { email: "a@b.example" });
      await jitsu.page({ name: "Home", url: page.url });
      await jitsu.group("g1", { size: 3 });
    }
  },

  async posthog() {
    const { PostHog } = require("posthog-node");
    const posthog = new PostHog("key", { host: url, flushAt: 20, fetchRetryDelay: 100 });
    posthog.on("error", failed);
    posthog.capture({
      distinctId: "u1", event: "Bought", properties: { plan: "pro" }, timestamp: when,
    });
    posthog.identify({ distinctId: "u1", properties: { email: "a@b.example" } });
    posthog.alias({ distinctId: "u1", alias: "u2" });
    posthog.groupIdentify({ groupType: "company", groupKey: "g1", properties: { size: 3 } });
    posthog.capture({
      distinctId: "u1", event: "$pageview", properties: { $current_url: page.url },
    });
    posthog.capture({ distinctId: "u1", event: "$screen" });
    await posthog.shutdown();
  },

  async snowplow() {
    const snowplow = require("@snowplow/node-tracker");
    const schema = (name) => `iglu:com.acme/${name}/jsonschema/1-0-0`;
    for (const eventMethod of ["post", "get"]) {
      for (const encodeBase64 of [true, false]) {
        const tracker = snowplow.newTracker(
          { namespace: "shop", appId: "app", encodeBase64 },
          { endpoint: url, eventMethod, bufferSize: 3, onRequestFailure: () => {} },
        );
        tracker.setUserId("u1");
        const sent = [
          snowplow.buildPageView({ pageUrl: page.url, pageTitle: "Home", referrer: page.referrer }),
          snowplow.buildStructEvent({ category: "shop", action: "Bought", value: 1.5 }),
          snowplow.buildSelfDescribingEvent({
            event: { schema: schema("link_click"), data: { plan: "pro" } },
          }),
        ];
        for (const event of sent) {
          tracker.track(event, [{ schema: schema("cart"), data: { title: "Grüße" } }]);
        }
        await tracker.flush?.();
      }
    }
  },

  async umami() {
    const { Umami } = require("@umami/node");
    const umami = new Umami({ websiteId: "site", hostUrl: url });
    const answers = [
      await umami.track({ url: "/home", title: "Home", hostname: "shop.example" }),
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
        const exporter = new Exporter({ url: `${url}/v1/logs`, compression });
        const provider = new LoggerProvider({
          processors: [new BatchLogRecordProcessor({ exporter })],
        });
        provider.getLogger("shop", "1.0").emit({
          eventName: "Bought", timestamp: when, severityNumber: 9, severityText: "INFO",
          body: { plan: "pro" }, attributes: { "user.id": "u1", n: 7, list: ["a", 1.5] },
        });
        await provider.forceFlush();
        await provider.shutdown();
      }
    }
  },
};

await sdks[name]().catch(failed);
