// A standard client against the standard endpoints: everything it sends and
// checks is the libraries' own. ISSUER is what the server is configured with,
// BASE where it really listens.
import * as oauth from 'oauth4webapi';
import * as jose from 'jose';

const { ISSUER, BASE, AGENT, SECRET } = process.env;
const issuer = new URL(ISSUER);
const rebased = (url, options) => fetch(String(url).replace(issuer.origin, BASE), options);
const http = { [oauth.customFetch]: rebased };
const results = {};
const client = { client_id: AGENT };
const auths = SECRET ? { basic: oauth.ClientSecretBasic(SECRET), post: oauth.ClientSecretPost(SECRET) } : { none: oauth.None() };
const auth = Object.values(auths)[0];

const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }));
results.discovered = [as.token_endpoint, as.introspection_endpoint, as.revocation_endpoint, as.jwks_uri];
const rs = await oauth.processResourceDiscoveryResponse(issuer, await oauth.resourceDiscoveryRequest(issuer, http));
results.resource = rs.authorization_servers;

const want = { resource: `${ISSUER}/proxy/github`, scope: 'github:repos:read' };
let tokens;
for (const [name, method] of Object.entries(auths)) {
  tokens = await oauth.processClientCredentialsResponse(as, client, await oauth.clientCredentialsGrantRequest(as, client, method, want, http));
  results[`clientCredentials_${name}`] = [tokens.token_type, tokens.scope, tokens.expires_in];
}

// Anyone can verify the token by the key set.
const set = jose.createRemoteJWKSet(new URL(as.jwks_uri), { [jose.customFetch]: rebased });
const { payload, protectedHeader } = await jose.jwtVerify(tokens.access_token, set, { issuer: ISSUER, audience: 'agentic-credential-vault-proxy' });
results.verified = [protectedHeader.alg, payload.sub, payload.service, payload.scope];

const get = async (token, options) => {
  const answer = await oauth.protectedResourceRequest(token, 'GET', new URL(`${ISSUER}/proxy/github/repos/o/r`), undefined, undefined, { ...http, ...options });
  return [answer.status, (await answer.json()).full_name];
};
results.called = await get(tokens.access_token);

const introspect = async (token) => oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, token, http));
const info = await introspect(tokens.access_token);
results.introspected = [info.active, info.sub, info.scope, info.token_type, info.exp - info.iat];

const exchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
const access = 'urn:ietf:params:oauth:token-type:access_token';
const child = await oauth.processGenericTokenEndpointResponse(as, client, await oauth.genericTokenEndpointRequest(as, client, auth, exchange,
  { subject_token: tokens.access_token, subject_token_type: access, scope: 'github:repos:read' }, http));
const childInfo = await introspect(child.access_token);
results.exchanged = [child.issued_token_type, child.token_type, childInfo.active, childInfo.act.act.sub, childInfo.parentId === info.jti];
results.childCalled = await get(child.access_token);

// Errors in their own format.
const refused = async (parameters, grant) => {
  try {
    await oauth.processGenericTokenEndpointResponse(as, client, await oauth.genericTokenEndpointRequest(as, client, auth, grant, parameters, http));
    return 'granted';
  } catch (err) {
    return [err.error, err.status];
  }
};
results.errors = {
  scope: await refused({ ...want, scope: 'github:admin' }, 'client_credentials'),
  target: await refused({ ...want, resource: 'https://elsewhere.example/' }, 'client_credentials'),
  noTarget: await refused({ scope: want.scope }, 'client_credentials'),
  grant: await refused(want, 'password'),
  subject: await refused({ subject_token: 'x.y.z', subject_token_type: access }, exchange),
  subjectType: await refused({ subject_token: 'x', subject_token_type: 'urn:ietf:params:oauth:token-type:saml2' }, exchange),
  wider: await refused({ subject_token: tokens.access_token, subject_token_type: access, scope: 'github:issues:write' }, exchange),
};

// DPoP, with the server's nonce.
const keys = await oauth.generateKeyPair('ES256');
const DPoP = oauth.DPoP(client, keys);
const bound = async () => oauth.processClientCredentialsResponse(as, client, await oauth.clientCredentialsGrantRequest(as, client, auth, want, { ...http, DPoP }));
let held;
try {
  held = await bound();
} catch (err) {
  if (!oauth.isDPoPNonceError(err)) throw err;
  results.nonceAsked = true;
  held = await bound();
}
const heldInfo = await introspect(held.access_token);
results.bound = [held.token_type, heldInfo.token_type, heldInfo.cnf.jkt === await jose.calculateJwkThumbprint(await jose.exportJWK(keys.publicKey))];
results.boundCalled = await get(held.access_token, { DPoP });
try {
  await get(held.access_token);
} catch (err) {
  results.boundStolen = err.cause.map((c) => [c.scheme, c.parameters.error]);
}

await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, tokens.access_token, http));
await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, 'never.was.one', http));
results.revoked = [(await introspect(tokens.access_token)).active, (await introspect(child.access_token)).active];

console.log(JSON.stringify(results));
