// Sends generated events with k6 (https://k6.io), for people who trust their own tools.
//
//   ringlake generate --events 100000 --seed 1 > events.ndjson
//   k6 run -e FILE=events.ndjson perf/k6/events.js
//
// One iteration is one request; arrivals are an open loop, so that a slow answer does not slow the
// arrivals down and its wait is counted. Settings, each as -e NAME=value:
//
//   URL       http://127.0.0.1:8080   the server
//   FILE      events.ndjson           one event a line
//   RATE      5000                    requests a second
//   BATCH     1                       events a request
//   DURATION  30s
//   ACK       disk                    disk or memory
//   KEY                               a write key, once the server has keys
//
// The run fails when one request in a thousand is not answered 202, or when the 99th percentile of
// the answers is 10 ms or more.

import exec from 'k6/execution';
import http from 'k6/http';
import { check } from 'k6';
import { SharedArray } from 'k6/data';

const setting = (name, otherwise) => __ENV[name] || otherwise;
const url = setting('URL', 'http://127.0.0.1:8080');
const rate = Number(setting('RATE', '5000'));
const batch = Number(setting('BATCH', '1'));
const ack = setting('ACK', 'disk');
const key = setting('KEY', '');

const events = new SharedArray('events', () =>
  open(setting('FILE', 'events.ndjson')).split('\n').filter((line) => line !== ''),
);

export const options = {
  discardResponseBodies: true,
  scenarios: {
    events: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: setting('DURATION', '30s'),
      // A thousandth of the rate is under way when answers take a millisecond; k6 adds more.
      preAllocatedVUs: Math.max(50, Math.ceil(rate / 20)),
      maxVUs: Math.max(100, rate),
    },
  },
  thresholds: {
    checks: ['rate>0.999'],
    http_req_duration: ['p(99)<10'],
  },
};

const headers = {
  'Content-Type': batch === 1 ? 'application/json' : 'application/x-ndjson',
  ...(key === '' ? {} : { Authorization: `Bearer ${key}` }),
};

export default function () {
  const first = exec.scenario.iterationInTest * batch;
  const lines = Array.from({ length: batch }, (_, at) => events[(first + at) % events.length]);
  const answer = http.post(`${url}/v1/events?ack=${ack}`, lines.join('\n'), { headers });
  check(answer, { 'is accepted': ({ status }) => status === 202 });
}
