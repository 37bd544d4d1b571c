// Connections that talk, go, and come back: each virtual user must meet the replica it met before, the name in the handshake
// (X-Replica) and in the greeting must agree, and what is said must come back. The limit of p95 is for one message there and
// back. Variables: common.js. Replicas chosen by the client's address are met by all users of one machine alike;
// `k6 run --local-ips=127.0.1.1,127.0.2.1,127.0.3.1` gives the users of a local deployment several addresses.
import ws from 'k6/ws';
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { BASE, PAUSE_S, options as shared, summarise } from './common.js';

export { sampleConnections, setup, teardown } from './common.js';

const TIMED = 'websocket_message_ms';
const MESSAGES = 10;
const WAIT_MS = 10000;
const echoes = new Trend(TIMED);
const messages = new Counter('messages');
const replicas = new Counter('replicas');

export const options = shared(TIMED);
delete options.thresholds['http_req_failed{scenario:load}'];

let known = null; // of this virtual user

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (_) {
    return {};
  }
}

export default function () {
  let met = null;
  let echoed = 0;
  let wrong = 0;
  let asked = null;
  const url = `${BASE.replace(/^http/, 'ws')}/ws/echo/`;
  const answer = ws.connect(url, { tags: { name: '/ws/echo/' } }, (socket) => {
    function say() {
      asked = { text: `${exec.vu.idInTest}-${echoed}-${Date.now()}`, at: Date.now() };
      socket.send(asked.text);
    }
    socket.on('message', (text) => {
      const said = parse(text);
      if (met === null) {
        met = said.replica;
        say();
        return;
      }
      echoes.add(Date.now() - asked.at);
      messages.add(1);
      echoed += 1;
      if (said.echo !== asked.text || said.replica !== met) wrong += 1;
      if (echoed === MESSAGES) socket.close();
      else socket.setTimeout(say, Math.max(1, PAUSE_S * 100));
    });
    socket.on('error', () => { wrong += 1; });
    socket.setTimeout(() => socket.close(), WAIT_MS);
  });
  const header = answer && answer.headers ? answer.headers['X-Replica'] : undefined;
  check(answer, {
    'the handshake is 101': () => answer && answer.status === 101,
    'handshake and greeting name one replica': () => met !== null && (header === undefined || header === met),
    'all messages came back': () => echoed === MESSAGES && wrong === 0,
    'the replica of before': () => met !== null && (known === null || known === met),
  });
  if (met !== null) replicas.add(1, { replica: met });
  known = met || known;
  sleep(PAUSE_S * (0.5 + Math.random()));
}

export function handleSummary(data) {
  return summarise(data, 'WebSocket messages', TIMED, 'messages');
}
