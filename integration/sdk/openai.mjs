// The base URL and the key come from OPENAI_BASE_URL and OPENAI_API_KEY, as in
// any program that uses this library.
import OpenAI, { toFile } from 'openai';
import { note, refused, report, step } from './wire.mjs';

const client = new OpenAI({ maxRetries: 1 });
const messages = [{ role: 'user', content: 'Say "hé".' }];

const chat = await client.chat.completions.create({ model: 'gpt-4o-mini', messages });
note('chat', chat.choices[0].message.content);
note('requestId', chat._request_id);

const deltas = [];
const stream = await client.chat.completions.create({ model: 'gpt-4o-mini', messages, stream: true });
for await (const chunk of stream) {
  deltas.push(chunk.choices[0].delta.content);
  await step();
}
note('deltas', deltas);

// The same through the helper, which puts the answer together.
const whole = client.chat.completions.stream({ model: 'gpt-4o-mini', messages });
whole.on('chunk', step);
note('streamed', (await whole.finalChatCompletion()).choices[0].message.content);

const events = [];
for await (const event of await client.responses.create({ model: 'gpt-4o-mini', input: 'hi', stream: true })) {
  events.push(event.type);
  await step();
}
note('events', events);

// A stream that the client gives up.
const given = await client.chat.completions.create({ model: 'gpt-4o-mini', messages, stream: true });
for await (const chunk of given) {
  note('gaveUpAfter', chunk.choices[0].delta.content);
  break; // aborts the request
}

// The library asks for base64 by itself, and decodes it.
const embedding = await client.embeddings.create({ model: 'text-embedding-3-small', input: ['a', 'b'] });
note('embeddings', embedding.data.map((d) => d.embedding));

const file = await client.files.create({
  file: await toFile(Buffer.from('{"prompt":"ü"}\n'), 'träin.jsonl', { type: 'application/jsonl' }),
  purpose: 'fine-tune',
});
note('file', file.id);
note('content', await (await client.files.content(file.id)).text());
note('speech', Buffer.from(await (await client.audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'hi' })).arrayBuffer()).toString('hex'));

const ids = [];
for await (const f of client.files.list({ limit: 2 })) ids.push(f.id);
note('files', ids);

// One answer of 429 with Retry-After, then one that is none.
note('retried', (await client.moderations.create({ input: 'x' })).id);

await refused('upstreamRefuses', () => client.models.retrieve('not-yours'));
await refused('vaultRefuses', () => client.vectorStores.list());
await refused('noEndpoint', () => client.fineTuning.jobs.list());
await refused('notAToken', () => client.withOptions({ apiKey: 'sk-none' }).models.list());

// A budget that is spent does not come back, and the library does not try.
let tries = 0;
const once = client.withOptions({
  apiKey: process.env.OPENAI_ONCE,
  fetch: (...args) => {
    tries++;
    return fetch(...args);
  },
});
await once.moderations.create({ input: 'y' });
await refused('spent', () => once.moderations.create({ input: 'z' }));
note('tries', tries);

report();
