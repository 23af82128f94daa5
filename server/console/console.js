// The console: two looks a second apart make the rates, SQL makes the rest. What events hold goes
// into the page as text only.
"use strict";

const TICK_MS = 1000;
const HISTORY = 120;
/** More rows would make the page slow; the query is broken off there. */
const ROWS_MAX = 1000;
const BARS_MAX = 60;
const NEWEST = "/v1/events?order=desc&limit=20";
const NEWEST_COLUMNS = ["received_at", "tenant", "type", "event", "user_id", "url"];
const NEWEST_EVERY = 3;

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), units.length - 1);
  return `${(count / 1000 ** power).toFixed(power && count / 1000 ** power < 100 ? 1 : 0)} ${units[power]}`;
}

function time(seconds) {
  if (seconds === null) return "–";
  return seconds < 1 ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms` : `${seconds.toFixed(1)} s`;
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw Object.assign(new Error(await reason(answer)), { status: answer.status });
  return answer;
}

async function reason(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text || `${answer.status} ${answer.statusText}`;
  }
}

// Live figures.

const history = { rate: [], p99: [] };
let before = null;

/** The cumulative buckets of the acknowledgement latency: [upper bound, count]. */
function buckets(text) {
  const pattern = /^event_ingestion_latency_seconds_bucket\{le="([^"]+)"\} (\d+)/gm;
  return [...text.matchAll(pattern)].map(([, le, count]) => [le === "+Inf" ? Infinity : +le, +count]);
}

/** The quantile of what came between two looks; null when nothing did. */
function quantile(now, then, part) {
  const counts = now.map(([bound, count], at) => [bound, count - (then[at]?.[1] ?? 0)]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let [low, below] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= part * all) {
      if (bound === Infinity) return low;
      return low + (bound - low) * ((part * all - below) / Math.max(count - below, 1));
    }
    [low, below] = [bound, count];
  }
  return low;
}

function remember(line, value) {
  line.push(value);
  if (line.length > HISTORY) line.shift();
}

function draw(svg, line) {
  const most = Math.max(...line, 1e-9);
  const points = line.map((value, at) => `${at - line.length + HISTORY},${(1 - value / most) * 28 + 1}`);
  svg.setAttribute("viewBox", `0 0 ${HISTORY} 30`);
  svg.setAttribute("preserveAspectRatio", "none");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  svg.replaceChildren(path);
}

function show(status) {
  const ready = status.ready;
  $("state").textContent = ready ? "ready" : "not ready";
  $("state").className = `pill ${ready ? "good" : "bad"}`;
  $("about").textContent = `${status.version} · node ${status.node} · up ${number.format(status.uptime_seconds)} s`;
  $("hot").textContent = number.format(status.hot.rows);
  $("log").textContent = bytes(status.log_bytes);
  $("log-limit").textContent = `of at most ${bytes(status.space.log_max_bytes)}`;
  $("lake").textContent = bytes(status.lake.bytes);
  $("lake-files").textContent = `${number.format(status.lake.rows)} rows in ${number.format(status.lake.files)} files, version ${number.format(status.lake.version)}`;
  const refused = Object.entries(status.accounting.refused).filter(([, count]) => count > 0);
  $("refused").textContent = number.format(refused.reduce((sum, [, count]) => sum + count, 0));
  $("reasons").textContent = refused.map(([name, count]) => `${name} ${number.format(count)}`).join(", ") || "nothing since the start";
  $("rings").replaceChildren(...status.shards.map(ring));
}

function ring(shard) {
  const row = document.createElement("div");
  row.className = "ring";
  const meter = document.createElement("meter");
  Object.assign(meter, { min: 0, max: shard.ring_capacity, high: shard.ring_capacity * 0.8, value: shard.ring_bytes });
  row.append(`shard ${shard.shard}`, meter, bytes(shard.ring_bytes));
  return row;
}

async function look() {
  const [status, metrics] = await Promise.all([ask("/v1/status"), ask("/metrics")]);
  const now = { at: performance.now(), status: await status.json(), buckets: buckets(await metrics.text()) };
  show(now.status);
  if (before) {
    const seconds = (now.at - before.at) / 1000;
    const rate = Math.max(0, now.status.accounting.received - before.status.accounting.received) / seconds;
    const [p50, p99] = [0.5, 0.99].map((part) => quantile(now.buckets, before.buckets, part));
    $("rate").textContent = short.format(rate);
    $("p50").textContent = time(p50);
    $("p99").textContent = time(p99);
    remember(history.rate, rate);
    remember(history.p99, p99 ?? 0);
    draw($("rate-line"), history.rate);
    draw($("p99-line"), history.p99);
  }
  before = now;
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

/** One look after the other; a slow answer delays the next instead of piling up. */
async function watch() {
  for (let tick = 0; ; tick++) {
    try {
      await look();
      notice("");
    } catch (error) {
      if (error.status === 403) {
        // A tenant's key: the figures are the whole server's.
        $("live").hidden = true;
        $("state").hidden = true;
        notice("Live figures need an admin key; SQL shows what this key may read.");
      } else {
        $("state").textContent = "no answer";
        $("state").className = "pill bad";
        notice(error.message);
      }
    }
    if (tick % NEWEST_EVERY === 0) await newest();
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
}

// SQL.

/** Runs `sql`; gives at most ROWS_MAX rows and whether there are more. */
async function rows(sql, signal) {
  const answer = await fetch("/v1/query", {
    method: "POST",
    headers: { "Content-Type": "text/plain", Accept: "application/x-ndjson" },
    body: sql,
    signal,
  });
  if (!answer.ok) throw new Error(await reason(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const found = [];
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines) if (line) found.push(JSON.parse(line));
    if (found.length > ROWS_MAX) await reader.cancel();
    if (done || found.length > ROWS_MAX) break;
  }
  return { found: found.slice(0, ROWS_MAX), more: found.length > ROWS_MAX };
}

function table(found) {
  const names = Object.keys(found[0] ?? {});
  const whole = document.createElement("table");
  const head = whole.createTHead().insertRow();
  for (const name of names) head.append(Object.assign(document.createElement("th"), { textContent: name }));
  const body = whole.createTBody();
  for (const row of found) {
    const line = body.insertRow();
    for (const name of names) {
      const cell = line.insertCell();
      const value = row[name];
      cell.textContent = value === null ? "null" : typeof value === "object" ? JSON.stringify(value) : String(value);
      cell.title = cell.textContent;
      if (typeof value === "number") cell.className = "number";
      if (value === null) cell.className = "null";
    }
  }
  return whole;
}

/** Bars of the first column with numbers, named by the first one without. */
function chart(found) {
  const svg = $("chart");
  const names = Object.keys(found[0] ?? {});
  const value = names.find((name) => found.every((row) => typeof row[name] === "number"));
  const label = names.find((name) => found.some((row) => typeof row[name] === "string"));
  const none = found.length < 2 || found.length > BARS_MAX || !value || !label;
  svg.toggleAttribute("hidden", none);
  if (none) return;
  const most = Math.max(...found.map((row) => row[value]), 1e-9);
  const [width, height, foot] = [1000, 170, 16];
  const step = width / found.length;
  const make = (name, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, given] of Object.entries(attributes)) element.setAttribute(key, given);
    element.textContent = text;
    return element;
  };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(...found.flatMap((row, at) => {
    const tall = Math.max(0, row[value] / most) * (height - foot - 14);
    const bar = make("rect", { x: at * step + step * 0.1, y: height - foot - tall, width: step * 0.8, height: tall });
    bar.append(make("title", {}, `${row[label]}: ${number.format(row[value])}`));
    return [bar];
  }), make("text", { x: 2, y: 11 }, `${value}, at most ${number.format(most)}`),
    make("text", { x: 2, y: height - 3 }, String(found[0][label])),
    make("text", { x: width - 2, y: height - 3, "text-anchor": "end" }, String(found.at(-1)[label])));
}

let running = null;

async function run() {
  running?.abort();
  // A link to the page as it is shows the same query.
  window.history.replaceState(null, "", `#${encodeURIComponent($("sql").value)}`);
  const mine = running = new AbortController();
  $("took").textContent = "running";
  const began = performance.now();
  try {
    const { found, more } = await rows($("sql").value, mine.signal);
    const seconds = (performance.now() - began) / 1000;
    $("took").textContent = `${more ? "the first " : ""}${number.format(found.length)} rows in ${time(seconds)}`;
    $("result").replaceChildren(found.length ? table(found) : "no rows");
    chart(found);
  } catch (error) {
    if (mine.signal.aborted) return;
    $("took").textContent = "";
    $("chart").toggleAttribute("hidden", true);
    $("result").textContent = error.message;
  }
}

async function newest() {
  try {
    const { events } = await (await ask(NEWEST)).json();
    const found = events.map((event) =>
      Object.fromEntries(NEWEST_COLUMNS.map((name) => [name, event[name] ?? null])));
    $("newest").replaceChildren(found.length ? table(found) : "none yet");
  } catch (error) {
    $("newest").textContent = error.message;
  }
}

$("query").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
$("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("query").requestSubmit();
});
const linked = decodeURIComponent(location.hash.slice(1));
if (linked) {
  $("sql").value = linked;
  run();
}
watch();
