// WebSockets that echo small messages as fast as one core allows: the load of bench.py's http-ws-messages.
//
//   k6 run --quiet --no-summary --no-usage-report --log-format raw \
//     -e PORT=8080 -e SOCKETS=64 -e SECONDS=2 loadtest/k6/bench_websocket.js
//
// Every socket has one message under way: it sends the next when the last came back, and checks that it is the one it sent.
// One VU drives them all from one event loop: it knows when all are open, which is when the clock and the messages begin.
// The last line on stderr is JSON: {"sockets", "messages", "wrong", "errors", "seconds"}; `messages` counts round trips.
import { WebSocket } from 'k6/experimental/websockets';

const SOCKETS = Number(__ENV.SOCKETS || 64);
const SECONDS = Number(__ENV.SECONDS || 2);
const URL = `ws://127.0.0.1:${__ENV.PORT}/ws/`;
const TEXT = 'a message of thirty-two bytes: ';  // and a digit

export const options = { vus: 1, iterations: 1 };

export default function () {
  const sockets = [];
  let open = 0;
  let messages = 0;
  let wrong = 0;
  let errors = 0;
  let began = 0;
  let stopping = false;

  function stop() {
    if (stopping) return;
    stopping = true;
    const seconds = began ? (Date.now() - began) / 1000 : 0;
    console.log(JSON.stringify({ sockets: open, messages, wrong, errors, seconds }));
    for (const socket of sockets) socket.close();
  }

  for (let number = 0; number < SOCKETS; number++) {
    const socket = new WebSocket(URL);
    const text = TEXT + (number % 10);
    sockets.push(socket);
    socket.onopen = () => {
      open += 1;
      if (open < SOCKETS) return;
      began = Date.now();
      setTimeout(stop, SECONDS * 1000);
      sockets.forEach((each, index) => each.send(TEXT + (index % 10)));
    };
    socket.onmessage = (event) => {
      messages += 1;
      if (event.data !== text) wrong += 1;
      if (!stopping) socket.send(text);
    };
    socket.onerror = () => {
      errors += 1;
      stop();
    };
  }
}
