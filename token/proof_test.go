package token

import (
	"strings"
	"testing"
)

// The examples of RFC 9449 (sections 4.1 and 7.1) and RFC 7638's way to a
// thumbprint, as others have computed them.
func TestProofOfRFC(t *testing.T) {
	const raw = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
	p, err := ParseProof(raw)
	if err != nil {
		t.Fatal(err)
	}
	if p.JKT != "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" || p.ID != "-BwC3ESc6acc2lTc" || p.Method != "POST" || p.URL != "https://server.example.com/token" || p.IssuedAt.Unix() != 1562262616 {
		t.Errorf("%+v", p)
	}
	if got := HashOf("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"); got != "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo" {
		t.Errorf("ath %s", got)
	}
}

// FuzzProof: what is taken has a key whose signature covers exactly the text,
// and nothing that is wrong is quoted.
func FuzzProof(f *testing.F) {
	f.Add("eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.e30.AAAA")
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := ParseProof(raw)
		switch {
		case (p == nil) == (err == nil):
			t.Fatalf("%v and %v", p, err)
		case err != nil && len(raw) > 24 && strings.Contains(err.Error(), raw[:24]):
			t.Fatal("the error quotes the proof")
		case p != nil && (p.ID == "" || p.URL == "" || len(p.JKT) != 43):
			t.Fatalf("%+v", p)
		}
	})
}

// FuzzProofHeader reaches the parsers before the signature.
func FuzzProofHeader(f *testing.F) {
	f.Add(`{"typ":"dpop+jwt","alg":"ES256","jwk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}`)
	f.Add(`{"typ":"dpop+jwt","alg":"RS256","jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}}`)
	f.Add(`{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}`)
	f.Fuzz(func(t *testing.T, header string) {
		k, err := proofKey(encode([]byte(header)))
		if err == nil && (k.method == nil || k.public == nil || len(k.jkt) != 43) {
			t.Fatalf("%+v", k)
		}
	})
}

// Claims that narrow a token, in forms that the vault does not write.
func TestHostileNarrowClaims(t *testing.T) {
	a := newAuthority(t, hmacKey(t), []Key{edKey(t)}, testOptions(&testClock{testNow}))
	for _, claims := range []string{
		`"actions":[]`, `"actions":null`, `"actions":"repo.get"`, `"actions":[""]`, `"actions":[1]`, `"actions":{}`,
		`"params":{}`, `"params":null`, `"params":[]`, `"params":{"a":"b"}`, `"params":{"a":[]}`, `"params":{"a":[1]}`, `"params":{"a":[null]}`, `"params":{"":["x"]}`, `"params":{"a":["x"],"a":["y"]}`,
		`"maxCalls":0`, `"maxCalls":-1`, `"maxCalls":1.5`, `"maxCalls":1e3`, `"maxCalls":"5"`, `"maxCalls":null`, `"maxCalls":9007199254740993`, `"maxCalls":18446744073709551617`,
		`"maxBytes":0`, `"maxBytes":[]`, `"oneTime":true`, `"oneTime":false`, `"oneTime":1,"maxCalls":1`, `"oneTime":true,"maxCalls":2`,
		`"anc":[]`, `"anc":[{"jti":"x"}]`, `"anc":null`, `"act":{"sub":"tony"}`, `"act":{"sub":"tony","act":{"sub":"steve"}}`,
		`"anc":[{"jti":"x"}],"act":{"sub":"tony"}`, `"anc":[{"jti":"x"}],"act":{"sub":"steve","act":{"sub":"tony"}}`, `"anc":[{"jti":""}],"act":{"sub":"tony","act":{"sub":"a"}}`,
		`"anc":[{"jti":"x","more":1}],"act":{"sub":"tony","act":{"sub":"a"}}`, `"anc":[{"jti":"x"}],"act":{"sub":"tony","act":{"sub":""}}`, `"anc":[{"jti":"x"}],"act":{"sub":"tony","act":{"sub":"a"},"iss":"x"}`,
		`"anc":[{"jti":"x"},{"jti":"y"}],"act":{"sub":"tony","act":{"sub":"a"}}`, `"anc":[{"jti":"x","maxCalls":0}],"act":{"sub":"tony","act":{"sub":"a"}}`,
		`"anc":[` + strings.TrimSuffix(strings.Repeat(`{"jti":"x"},`, 9), ",") + `],"act":` + strings.Repeat(`{"sub":"tony","act":`, 9) + `{"sub":"a"}` + strings.Repeat("}", 9),
		`"act":` + strings.Repeat(`{"sub":"tony","act":`, 200) + `{"sub":"a"}` + strings.Repeat("}", 200),
		`"cnf":{}`, `"cnf":null`, `"cnf":{"jkt":""}`, `"cnf":{"jkt":"x"}`, `"cnf":{"jkt":["x"]}`, `"cnf":{"jwk":{}}`, `"cnf":{"kid":"x"}`, `"cnf":"x"`,
		`"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I","x5t#S256":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`,
		`"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4J"}`, `"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I","more":"x"}`,
	} {
		for _, raw := range payloads(t, with(`"sub"`, claims+`,"sub"`)) {
			if _, r := a.Verify(raw); codeOf(r) != "TOKEN_INVALID" {
				t.Errorf("%s: %v", claims, r)
			} else {
				checkSilent(t, raw, r)
			}
		}
	}
	// And one of each that it does write.
	for _, claims := range []string{
		`"actions":["repo.get"]`, `"params":{"a":["x",""]}`, `"maxCalls":1`, `"maxBytes":9007199254740992`, `"oneTime":true,"maxCalls":1`,
		`"anc":[{"jti":"x","task":"t","maxCalls":1,"maxBytes":2}],"act":{"sub":"tony","act":{"sub":"a"}}`,
		`"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`, `"cnf":{"x5t#S256":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`,
	} {
		for _, raw := range payloads(t, with(`"sub"`, claims+`,"sub"`)) {
			if _, r := a.Verify(raw); r != nil {
				t.Errorf("%s: %v", claims, r)
			}
		}
	}
}
