import { once } from 'node:events';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { WebSocket as Undici } from 'undici';
import WebSocket from 'ws';
import { note, report } from './wire.mjs';

const token = process.env.VAULT_TOKEN;
const headers = { Authorization: `Bearer ${token}` };

// open connects with the package ws and returns what to talk with.
async function open(path, options = { headers }) {
  const ws = new WebSocket(process.env.SOCKET_URL + path, options);
  const messages = [];
  let wake = () => {};
  ws.on('message', (data, binary) => { messages.push(binary ? data : data.toString()); wake(); });
  const closed = once(ws, 'close').then(([code, reason]) => [code, reason.toString()]);
  await once(ws, 'open');
  const hear = async () => {
    while (messages.length === 0) await new Promise((resolve) => { wake = resolve; });
    return messages.shift();
  };
  return { ws, hear, closed, ask: (message) => { ws.send(message); return hear(); } };
}

{
  const { ws, ask, hear, closed } = await open('/echo');
  note('echo', await ask('hé'));
  note('empty', await ask(''));
  note('binary', (await ask(Buffer.from([0, 255, 128]))).toString('hex'));
  const long = 'x'.repeat(3_000_000);
  note('long', (await ask(long)) === long);
  const many = Array.from({ length: 200 }, (_, i) => `message ${i}`);
  many.forEach((m) => ws.send(m));
  const back = [];
  for (const _ of many) back.push(await hear());
  note('order', back.every((m, i) => m === many[i]));
  note('fragments', await ask('fragments'));
  ws.send('here are ', { fin: false });
  ws.send('three ', { fin: false });
  ws.send('pieces', { fin: true });
  note('fragmentsUp', await hear());
  note('pongFromClient', await ask('ping'));
  ws.ping('you?');
  note('pongFromUpstream', (await once(ws, 'pong'))[0].toString());
  note('scrubbed', await ask('key'));
  ws.close(4002, 'by the client');
  note('closedByClient', await closed);
}
{
  const { ws, closed } = await open('/echo');
  ws.send('close');
  note('closedByUpstream', await closed);
}
{
  // What a client offers by default is not negotiated through the vault.
  const { ws, ask } = await open('/echo', { headers, perMessageDeflate: true });
  note('extensions', ws.extensions);
  note('uncompressed', await ask('still here'));
  ws.terminate();
}
{
  const ws = new Undici(process.env.SOCKET_URL + '/echo', { headers });
  await once(ws, 'open');
  ws.send('from fetch’s own');
  note('undici', (await once(ws, 'message'))[0].data);
  ws.close(1000, 'done');
  const [closed] = await once(ws, 'close');
  note('undiciClosed', [closed.code, closed.reason, closed.wasClean]);
}
{
  // As in a browser, where a page can set nothing but subprotocols.
  for (const [name, prefix] of [['subprotocol', 'openai-insecure-api-key.'], ['subprotocolAlone', '']]) {
    const ws = new WebSocket(process.env.SOCKET_URL + '/chat', ['chat', prefix + token, 'other']);
    await once(ws, 'open');
    ws.send('hello');
    note(name, [ws.protocol, (await once(ws, 'message'))[0].toString()]);
    ws.close();
  }
}
{
  // The vendor's own client of its own WebSocket.
  const rt = await OpenAIRealtimeWS.create(new OpenAI(), { model: 'gpt-realtime' });
  await once(rt.socket, 'open');
  rt.send({ type: 'response.create' });
  note('realtime', await new Promise((resolve) => rt.on('response.output_text.delta', (e) => resolve(e.delta))));
  rt.close();
}

// Refusals come before the upgrade, with a status and a code.
async function refusal(path, options) {
  const ws = new WebSocket(process.env.SOCKET_URL + path, options);
  const [, response] = await once(ws, 'unexpected-response');
  response.resume();
  ws.on('error', () => {}).terminate();
  return [response.statusCode, response.headers['vault-error']];
}
note('noToken', await refusal('/echo', {}));
note('noScope', await refusal('/admin', { headers }));
note('noSocket', await refusal('/plain', { headers }));

{
  const { ask, closed } = await open('/echo');
  await ask('hello');
  const revoked = await fetch(process.env.VAULT_URL + '/vault.revoke', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ sessionId: process.env.SESSION }),
  });
  note('revoked', revoked.status);
  note('cut', await closed);
  note('afterwards', await refusal('/echo', { headers }));
}

report();
process.exit(); // whatever a library still keeps open
