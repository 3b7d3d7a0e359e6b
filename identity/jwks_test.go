package identity

import (
	"fmt"
	"strings"
	"testing"
)

func TestKeySet(t *testing.T) {
	for name, tt := range map[string]struct {
		jwks          string
		keys, skipped int
	}{
		"none":                     {`{"keys":[]}`, 0, 0},
		"five":                     {jwksOf("rsa", "p256", "p384", "p521", "ed"), 5, 0},
		"more members":             {`{"x":{"y":[1]},"keys":[` + jwkOf("ed", `"use":"sig"`, `"alg":"EdDSA"`, `"key_ops":["verify"]`, `"x5c":["?"]`, `"x5t":"?"`, `"x5u":"?"`) + `]}`, 1, 0},
		"of a SPIFFE bundle":       {`{"spiffe_sequence":1,"keys":[` + jwkOf("ed", `"use":"jwt-svid"`) + `,` + jwkOf("rsa", `"use":"x509-svid"`) + `]}`, 1, 1},
		"for encryption":           {`{"keys":[` + jwkOf("rsa", `"use":"enc"`) + `]}`, 0, 1},
		"for wrapping":             {`{"keys":[` + jwkOf("rsa", `"key_ops":["wrapKey"]`) + `]}`, 0, 1},
		"for signing":              {`{"keys":[` + jwkOf("rsa", `"key_ops":["sign"]`) + `]}`, 0, 1},
		"with its private half":    {`{"keys":[` + jwkOf("ed", `"d":"AAAA"`) + `]}`, 0, 1},
		"with an empty half":       {`{"keys":[` + jwkOf("ed", `"d":null`) + `]}`, 0, 1},
		"symmetric":                {`{"keys":[{"kty":"oct","kid":"a","k":"AAAA","alg":"HS256"}]}`, 0, 1},
		"symmetric, as a JWT has":  {`{"keys":[` + jwkOf("rsa", `"alg":"HS256"`) + `]}`, 0, 1},
		"alg none":                 {`{"keys":[` + jwkOf("rsa", `"alg":"none"`) + `]}`, 0, 1},
		"for encryption by alg":    {`{"keys":[` + jwkOf("rsa", `"alg":"RSA-OAEP"`) + `]}`, 0, 1},
		"weak":                     {`{"keys":[` + weakRSA() + `]}`, 0, 1},
		"of another curve":         {`{"keys":[{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"},{"kty":"OKP","crv":"X25519","x":"AA"},{"kty":"AKP","pub":"AA"}]}`, 0, 3},
		"beside the curve":         {`{"keys":[{"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}]}`, 0, 1},
		"RSA with e 1":             {`{"keys":[` + strings.Replace(jwkOf("rsa"), `"AQAB"`, `"AQ"`, 1) + `]}`, 0, 1},
		"RSA with a huge e":        {`{"keys":[` + strings.Replace(jwkOf("rsa"), `"AQAB"`, `"AQAAAAAAAAAB"`, 1) + `]}`, 0, 1},
		"RSA without n":            {`{"keys":[{"kty":"RSA","e":"AQAB"}]}`, 0, 1},
		"no object":                {`{"keys":[1,null,"x",[],` + jwkOf("ed") + `]}`, 1, 4},
		"a member twice":           {`{"keys":[` + jwkOf("ed") + `]}`, 1, 0},
		"kid a number":             {`{"keys":[` + strings.Replace(jwkOf("ed"), `"kid":"ed"`, `"kid":1`, 1) + `]}`, 0, 1},
		"one key of no id":         {`{"keys":[` + strings.Replace(jwkOf("ed"), `"kid":"ed",`, ``, 1) + `]}`, 1, 0},
		"one key for two purposes": {`{"keys":[` + jwkOf("rsa", `"alg":"RS256"`) + `,` + jwkOf("rsa", `"alg":"PS256"`) + `]}`, 2, 0},
	} {
		set, err := parseKeySet([]byte(tt.jwks))
		if err != nil || len(set.all) != tt.keys || set.skipped != tt.skipped {
			t.Errorf("%s: %+v, %v", name, set, err)
		}
	}
	for name, data := range map[string]string{
		"nothing":        ``,
		"HTML":           `<html>`,
		"null":           `null`,
		"an array":       `[` + jwkOf("ed") + `]`,
		"one key":        jwkOf("ed"),
		"no keys":        `{}`,
		"keys null":      `{"keys":null}`,
		"keys an object": `{"keys":{"ed":` + jwkOf("ed") + `}}`,
		"keys twice":     `{"keys":[],"keys":[` + jwkOf("ed") + `]}`,
		"a kid twice":    `{"keys":[` + jwkOf("ed", `"kid":"rsa"`) + `]}`,
		"more data":      jwksOf("ed") + `{}`,
		"cut":            jwksOf("ed")[:40],
		"a megabyte":     `{"keys":[` + jwkOf("ed", `"x5c":["`+strings.Repeat("A", 1<<20)+`"]`) + `]}`,
		"too many":       `{"keys":[{}` + strings.Repeat(`,{}`, maxKeys) + `]}`,
	} {
		if set, err := parseKeySet([]byte(data)); err == nil {
			t.Errorf("%s: %+v", name, set)
		}
	}
}

func TestFind(t *testing.T) {
	set := mustSet(t, `{"keys":[`+strings.Join([]string{
		jwkOf("rsa", `"alg":"RS256"`), jwkOf("ed"), jwkOf("p256"),
		strings.Replace(jwkOf("p384"), `"p384"`, `"shared"`, 1), strings.Replace(jwkOf("p521"), `"p521"`, `"shared"`, 1),
		strings.Replace(jwkOf("other"), `"other"`, `"two"`, 1), strings.Replace(jwkOf("rsa"), `"rsa"`, `"two"`, 1),
		strings.Replace(jwkOf("rsa"), `"rsa"`, `"same"`, 1), strings.Replace(jwkOf("rsa"), `"rsa"`, `"same"`, 1),
	}, ",")+`]}`)
	for _, tt := range []struct {
		h            header
		found, known bool
	}{
		{header{"RS256", "rsa", true}, true, true},
		{header{"RS384", "rsa", true}, false, true}, // the key is for RS256
		{header{"PS256", "rsa", true}, false, true},
		{header{"ES256", "rsa", true}, false, true},
		{header{"ES384", "shared", true}, true, true},
		{header{"ES512", "shared", true}, true, true},
		{header{"ES256", "shared", true}, false, true},
		{header{"RS256", "two", true}, false, true},
		{header{"RS256", "same", true}, true, true},
		{header{"EdDSA", "none", true}, false, false},
		{header{"EdDSA", "", true}, false, false},
		{header{"EdDSA", "", false}, true, true},
		{header{"RS256", "", false}, false, true}, // two fit
	} {
		k, known := set.find(tt.h)
		if (k != nil) != tt.found || known != tt.known {
			t.Errorf("%s: %v, %v", fmt.Sprint(tt.h), k, known)
		}
	}
}
