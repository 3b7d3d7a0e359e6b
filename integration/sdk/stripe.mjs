// This library takes a host, but no path: it needs `vault proxy stripe`.
import Stripe from 'stripe';
import { note, refused, report } from './wire.mjs';

const { hostname: host, port, protocol } = new URL(process.env.STRIPE_URL);
const stripe = new Stripe(process.env.STRIPE_API_KEY, { host, port, protocol: protocol.slice(0, -1), maxNetworkRetries: 1, telemetry: true });

const customer = await stripe.customers.create({ name: 'Jenny Rosén', metadata: { 'a b': '1&2' }, address: { city: 'Zürich' } });
note('created', [customer.id, customer.name]);
note('requestId', customer.lastResponse.requestId);

const ids = [];
for await (const c of stripe.customers.list({ limit: 2 })) ids.push(c.id);
note('listed', ids);

const expanded = await stripe.paymentIntents.retrieve('pi_1', { expand: ['customer', 'latest_charge'] });
note('expanded', expanded.customer.id);

await refused('declined', () => stripe.paymentIntents.create({ amount: 1000, currency: 'eur', payment_method_types: ['card'], confirm: true }, { idempotencyKey: 'order-1' }));
note('deleted', (await stripe.customers.del('cus_1')).deleted);

await refused('vaultRefuses', () => stripe.refunds.create({ charge: 'ch_1' }));
await refused('noEndpoint', () => stripe.accounts.list());
await refused('notAToken', () => new Stripe('sk_test_none', { host, port, protocol: 'http', maxNetworkRetries: 0 }).balance.retrieve());

report();
