// A service with WebSockets, on a server that nobody here wrote. It prints its
// port, and then a line for each socket: how it began, and how it ended.
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const http = createServer((_, res) => res.end('no socket'));
const sockets = new WebSocketServer({ server: http });
sockets.on('connection', (ws, request) => {
  const say = (what) => console.log(JSON.stringify({ path: request.url, header: request.headers, ...what }));
  say({});
  ws.on('message', (data, binary) => {
    const text = data.toString();
    if (request.url.startsWith('/v1/realtime')) {
      ws.send(JSON.stringify({ type: 'response.output_text.delta', delta: JSON.parse(text).type }));
    } else if (request.url === '/chat') {
      ws.send(`offered ${request.headers['sec-websocket-protocol']}`);
    } else if (text === 'fragments') {
      ws.send('one ', { fin: false });
      ws.ping('between'); // control frames may stand between fragments
      ws.send('two ', { fin: false });
      ws.send('three', { fin: true });
    } else if (text === 'ping') {
      ws.once('pong', (payload) => ws.send(`pong ${payload}`));
      ws.ping('are you there');
    } else if (text === 'close') {
      ws.close(4001, 'by the upstream');
    } else if (text === 'key') {
      ws.send(`my key is ${request.headers.authorization}`);
    } else {
      ws.send(data, { binary });
    }
  });
  ws.on('close', (code, reason) => say({ closed: code, reason: reason.toString() }));
  ws.on('error', () => {});
});
http.listen(0, '127.0.0.1', () => console.log(http.address().port));
process.stdin.on('end', () => process.exit()).resume(); // with its parent
