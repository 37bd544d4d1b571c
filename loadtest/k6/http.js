// Reads, lists, writes in transactions, and a slow endpoint now and then; every answer is compared with what it must be.
// The limit of p95 is for requests that are not slow by design. Variables: common.js.
import http from 'k6/http';
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import { BASE, PAUSE_S, json, options as shared, summarise } from './common.js';

export { sampleConnections, setup, teardown } from './common.js';

const TIMED = 'http_req_duration{kind:page}';
const SLOW_S = 0.2;
const requests = new Counter('requests');

export const options = shared(TIMED);

const between = (low, high) => low + Math.floor(Math.random() * (high - low + 1));
const page = (name) => ({ tags: { kind: 'page', name } });

function readItem() {
  const item = between(1, 5000);
  const it = json(http.get(`${BASE}/api/items/${item}/`, page('/api/items/ID/')));
  check(it, { 'the item asked for': () => it.id === item && it.price_cents === 100 + ((item * 37) % 9900) });
}

function listItems() {
  const number = between(1, 100);
  const it = json(http.get(`${BASE}/api/items/?page=${number}`, page('/api/items/?page=')));
  check(it, {
    'the page asked for': () => it.page === number && it.items.length === 50 && it.items[0].id === number * 50 - 49,
  });
}

function order() {
  const reference = `k6-${Date.now()}-${exec.vu.idInTest}-${exec.vu.iterationInScenario}`;
  const wanted = { item: between(1, 5000), quantity: between(1, 9), reference };
  const answer = http.post(`${BASE}/api/orders/`, JSON.stringify(wanted), {
    headers: { 'Content-Type': 'application/json' }, ...page('/api/orders/'),
  });
  const it = json(answer);
  check(answer, {
    'the order as given': () => answer.status === 201 && Object.keys(wanted).every((key) => it[key] === wanted[key]),
  });
}

function count() {
  const name = `k6-${between(1, 50)}`;
  const it = json(http.post(`${BASE}/api/counter/${name}/`, null, page('/api/counter/NAME/')));
  check(it, { 'the counter asked for': () => it.name === name && it.value > 0 });
}

function slow() {
  const it = json(http.get(`${BASE}/api/slow/?seconds=${SLOW_S}`, { tags: { kind: 'slow', name: '/api/slow/' } }));
  check(it, { 'the slow answer': () => it.slept === SLOW_S });
}

export default function () {
  const dice = Math.random() * 100;
  if (dice < 50) readItem();
  else if (dice < 70) listItems();
  else if (dice < 85) order();
  else if (dice < 95) count();
  else slow();
  requests.add(1);
  sleep(PAUSE_S * (0.5 + Math.random()));
}

export function handleSummary(data) {
  return summarise(data, 'HTTP requests', TIMED, 'requests');
}
