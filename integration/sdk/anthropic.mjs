// The base URL and the key come from ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY.
import Anthropic, { toFile } from '@anthropic-ai/sdk';
import { note, refused, report, step } from './wire.mjs';

const client = new Anthropic({ maxRetries: 1 });
const ask = { model: 'claude-sonnet-4-5', max_tokens: 64, messages: [{ role: 'user', content: 'Say "hé".' }] };

note('message', (await client.messages.create(ask)).content);

const events = [];
for await (const event of await client.messages.create({ ...ask, stream: true })) {
  events.push(event.type === 'content_block_delta' ? event.delta.text : event.type);
  await step();
}
note('events', events);

const texts = [];
const stream = client.messages.stream(ask).on('text', (t) => texts.push(t)).on('streamEvent', step);
note('streamed', (await stream.finalMessage()).content[0].text);
note('texts', texts);

note('tokens', (await client.messages.countTokens({ model: ask.model, messages: ask.messages })).input_tokens);

const models = [];
for await (const m of client.models.list({ limit: 1 })) models.push(m.id);
note('models', models);

note('file', (await client.beta.files.upload({ file: await toFile(Buffer.from('hello'), 'a.txt', { type: 'text/plain' }) })).id);

// Some programs send what they have as a bearer token.
const bearer = new Anthropic({ authToken: process.env.ANTHROPIC_API_KEY, apiKey: null });
note('bearer', (await bearer.messages.countTokens({ model: ask.model, messages: ask.messages })).input_tokens);

await refused('upstreamRefuses', () => client.models.retrieve('not-yours'));
await refused('upstreamOverloaded', () => client.messages.create({ ...ask, model: 'overloaded' }));
await refused('vaultRefuses', () => client.messages.batches.list());
await refused('notAToken', () => client.withOptions({ apiKey: 'sk-ant-none' }).models.list());

report();
