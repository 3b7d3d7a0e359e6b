// A standard client that has a JWT of its platform and nothing else: it makes
// the JWT as an issuer with the key JWK would, and exchanges it. ISSUER is what
// the vault is configured with, BASE where it really listens.
import * as oauth from 'oauth4webapi';
import * as jose from 'jose';

const { ISSUER, BASE, PLATFORM, JWK } = process.env;
const issuer = new URL(ISSUER);
const http = { [oauth.customFetch]: (url, options) => fetch(String(url).replace(issuer.origin, BASE), options) };
const jwk = JSON.parse(JWK);
const key = await jose.importJWK(jwk, 'ES256');
const make = (audience, claims) => new jose.SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: jwk.kid, typ: 'JWT' })
  .setIssuer(PLATFORM).setAudience(audience).setIssuedAt().setNotBefore('0s').setExpirationTime('5m').sign(key);

const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }));
const client = { client_id: 'tony' };
const exchange = async (subject_token, kind, options) => {
  try {
    const answer = await oauth.genericTokenEndpointRequest(as, client, oauth.None(), 'urn:ietf:params:oauth:grant-type:token-exchange',
      { subject_token, subject_token_type: `urn:ietf:params:oauth:token-type:${kind}`, resource: `${ISSUER}/proxy/crew`, scope: 'a' }, { ...http, ...options });
    return await oauth.processGenericTokenEndpointResponse(as, client, answer);
  } catch (err) {
    if (err.error) return [err.error, err.status];
    throw err;
  }
};
const call = async (token, options) => (await oauth.protectedResourceRequest(token, 'GET', new URL(`${ISSUER}/proxy/crew/a`), undefined, undefined, { ...http, ...options })).status;

const results = {};
const good = await make(['caddyvault', 'other'], { sub: 'agents/tony', groups: ['crew'] });
for (const kind of ['jwt', 'id_token']) {
  const got = await exchange(good, kind);
  results[kind] = [got.token_type, got.issued_token_type, await call(got.access_token)];
}
const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'));
const bound = await exchange(good, 'jwt', { DPoP });
results.bound = [bound.token_type, await call(bound.access_token, { DPoP })];
results.audience = await exchange(await make('other', { sub: 'agents/tony', groups: ['crew'] }), 'jwt');
results.subject = await exchange(await make('caddyvault', { sub: 'people/tony', groups: ['crew'] }), 'jwt');
results.group = await exchange(await make('caddyvault', { sub: 'agents/tony' }), 'jwt');
console.log(JSON.stringify(results));
