// What the three scripts share: where to, how much, what must hold, and the database connections before, peak and after.
//
//     k6 run -e BASE_URL=https://example.org loadtest/k6/http.js
//
//     BASE_URL=http://127.0.0.1:8080    the deployment
//     LOADTEST_VUS=20                   virtual users
//     LOADTEST_DURATION=30s
//     LOADTEST_MAX_ERRORS=0.001         share of checks and requests that may fail
//     LOADTEST_MAX_P95_MS=500           each script says of what
//     LOADTEST_MAX_CONNECTIONS=50       by GET /db/connections/, asked twice a second; not asserted where there is no such page
//     LOADTEST_PAUSE_S=0.5              pause between two actions of a virtual user
//     LOADTEST_SUMMARY                  a file for the numbers as JSON
//
// k6 cannot ask PostgreSQL itself: loadtest/connections.py around the command does (it says how).
import http from 'k6/http';
import { Gauge, Trend } from 'k6/metrics';

const environment = (name, otherwise) => __ENV[name] || otherwise;

export const BASE = environment('BASE_URL', 'http://127.0.0.1:8080').replace(/\/+$/, '');
export const PAUSE_S = Number(environment('LOADTEST_PAUSE_S', '0.5'));
const DURATION = environment('LOADTEST_DURATION', '30s');
const MAX_ERRORS = Number(environment('LOADTEST_MAX_ERRORS', '0.001'));
const MAX_P95_MS = Number(environment('LOADTEST_MAX_P95_MS', '500'));
const MAX_CONNECTIONS = Number(environment('LOADTEST_MAX_CONNECTIONS', '50'));

const connections = new Trend('db_connections');
const connectionsAfter = new Gauge('db_connections_after');

// `timed` is the metric, with its tag, whose p95 is limited.
export function options(timed) {
  return {
    scenarios: {
      load: {
        executor: 'constant-vus', vus: Number(environment('LOADTEST_VUS', '20')), duration: DURATION, gracefulStop: '15s',
      },
      connections: {
        executor: 'constant-arrival-rate', rate: 2, timeUnit: '1s', duration: DURATION, preAllocatedVUs: 1, maxVUs: 2,
        exec: 'sampleConnections', gracefulStop: '5s',
      },
    },
    thresholds: {
      [timed]: [`p(95)<=${MAX_P95_MS}`],
      'checks{scenario:load}': [`rate>=${1 - MAX_ERRORS}`],
      'http_req_failed{scenario:load}': [`rate<=${MAX_ERRORS}`],
      db_connections: [`max<=${MAX_CONNECTIONS}`],
    },
    summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
    insecureSkipTLSVerify: true,
  };
}

// All connections to PostgreSQL that the page tells of; null where there is no such page. In `setup` an error ends the test.
function databaseConnections() {
  const answer = http.get(`${BASE}/db/connections/`, { responseCallback: http.expectedStatuses(200, 403, 404) });
  if (answer.status === 0) throw new Error(`nobody answers at ${BASE}: ${answer.error}`);
  if (answer.status !== 200) return null;
  const page = answer.json();
  const databases = Object.values(page.databases || {});
  if (databases.length > 0) return databases.reduce((sum, one) => sum + one.total_connections, 0);
  return page.connections && page.connections.default ? page.connections.default.total_connections : null;
}

export function sampleConnections() {
  const total = databaseConnections();
  if (total !== null) connections.add(total);
}

export function setup() {
  return { before: databaseConnections() };
}

export function teardown() {
  const total = databaseConnections();
  if (total !== null) connectionsAfter.add(total);
}

// Returns the JSON of an answer, or an empty object for what is none.
export function json(answer) {
  try {
    return answer.json() || {};
  } catch (_) {
    return {};
  }
}

// The end of a script: a line per limit for people, the numbers as JSON for programs. `counted` names the counter or
// trend that stands for "how many".
export function summarise(data, title, timed, counted) {
  const values = (name) => (data.metrics[name] ? data.metrics[name].values : {});
  if (values(counted).count === undefined) return { stdout: `${title}: none, nothing was asked\n` };
  const times = values(timed);
  const after = values('db_connections_after').value;
  const before = data.setup_data ? data.setup_data.before : null;
  const known = (number) => (number === undefined ? null : number);
  const limits = [];
  for (const [name, metric] of Object.entries(data.metrics)) {
    for (const [limit, result] of Object.entries(metric.thresholds || {})) {
      limits.push({ limit: `${name} ${limit}`, ok: result.ok });
    }
  }
  const failed = Object.values(data.root_group.checks || []).filter((one) => one.fails > 0);
  const summary = {
    seconds: data.state.testRunDurationMs / 1000,
    requests: known(values(counted).count),
    rps: known(values(counted).rate),
    p50: known(times.med), p95: known(times['p(95)']), p99: known(times['p(99)']), max: known(times.max),
    error_share: 1 - known(values('checks{scenario:load}').rate),
    errors_by_kind: Object.fromEntries(failed.map((one) => [one.name, one.fails])),
    connections: { before, peak: before === null ? null : known(values('db_connections').max), after: known(after) },
    broken: limits.filter((one) => !one.ok).map((one) => one.limit),
  };
  const ms = (number) => (number === null ? '?' : `${number.toFixed(1)} ms`);
  const seen = summary.connections;
  const lines = [
    `${title}: ${summary.requests} in ${summary.seconds.toFixed(1)} s, p50 ${ms(summary.p50)}, p95 ${ms(summary.p95)}, ` +
      `p99 ${ms(summary.p99)}, max ${ms(summary.max)}; ${(summary.error_share * 100).toFixed(3)} % of checks failed`,
    seen.before === null
      ? 'database connections by /db/connections/: not known, the page is not there'
      : `database connections by /db/connections/: ${seen.before} before, ${seen.peak} at the peak, ${seen.after} after`,
    ...failed.map((one) => `${one.fails} x not: ${one.name}`),
    ...limits.map((one) => `${one.ok ? 'ok  ' : 'FAIL'} ${one.limit}`),
  ];
  const outputs = { stdout: `${lines.join('\n')}\n` };
  if (__ENV.LOADTEST_SUMMARY) outputs[__ENV.LOADTEST_SUMMARY] = JSON.stringify(summary);
  return outputs;
}
