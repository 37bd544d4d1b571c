// Streams that end: server-sent events, which must be whole, in order, and arrive as they are made rather than at the end;
// and bytes, chunked and with Content-Length, which must be the bytes asked for. The limit of p95 is for the first byte.
// Variables: common.js.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import { BASE, PAUSE_S, options as shared, summarise } from './common.js';

export { sampleConnections, setup, teardown } from './common.js';

const TIMED = 'http_req_waiting{kind:stream}';
const EVENTS = 10;
const INTERVAL_S = 0.1;
const SIZE = 1 << 20;
// From the first byte to the last. A proxy that keeps events back sends all of them in a moment; a first byte that is late on
// a busy machine only makes this shorter.
const AS_MADE_MS = (EVENTS - 1) * INTERVAL_S * 1000 * 0.25;
const STRIDE = 4099; // a prime: over many steps each value of the pattern is met
const streams = new Counter('streams');

export const options = shared(TIMED);

function events() {
  const answer = http.get(`${BASE}/stream/sse/?n=${EVENTS}&interval=${INTERVAL_S}`, {
    tags: { kind: 'stream', name: '/stream/sse/' },
  });
  const seen = (answer.body || '').split('\n\n').filter((event) => event !== '');
  const whole = seen.every((event, index) => event.startsWith(`id: ${index + 1}\ndata: {"n": ${index + 1}, `));
  check(answer, {
    'every event, in order': () => seen.length === EVENTS && whole,
    'events arrive as they are made': () => answer.timings.receiving >= AS_MADE_MS,
  });
}

function bytes(declared) {
  const answer = http.get(`${BASE}/stream/bytes/?size=${SIZE}${declared ? '&length=1' : ''}`, {
    responseType: 'binary', tags: { kind: 'stream', name: '/stream/bytes/' },
  });
  const body = new Uint8Array(answer.body || new ArrayBuffer(0));
  let right = body.length === SIZE;
  for (let at = 0; right && at < SIZE; at += STRIDE) right = body[at] === at % 256;
  check(answer, { 'every byte, in order': () => right });
}

export default function () {
  const dice = Math.random();
  if (dice < 0.6) events();
  else bytes(dice < 0.8);
  streams.add(1);
  sleep(PAUSE_S * (0.5 + Math.random()));
}

export function handleSummary(data) {
  return summarise(data, 'streams', TIMED, 'streams');
}
