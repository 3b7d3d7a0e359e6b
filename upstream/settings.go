package upstream

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// ParseService is policy.ParseService together with what only Caddy knows:
// which values its reverse_proxy takes, and what is in the files that they
// name. A service without any costs nothing.
func ParseService(name string, data []byte) (*policy.Compiled, error) {
	svc, err := policy.ParseService(name, data)
	if err != nil || plain(svc) {
		return svc, err
	}
	if r := checkSettings(svc); r != nil {
		return nil, r
	}
	return svc, nil
}

// locating says where JSON is wrong, which Caddy's own decoder does not.
var locating = json.JoinOptions(
	jsonv1.DefaultOptionsV1(),
	jsonv1.ReportErrorsWithLegacySemantics(false),
	json.RejectUnknownMembers(true),
)

// decodeSettings reads a service's own reverse_proxy settings, Caddy's JSON,
// into the handler and its HTTP transport. What ParseService has let through,
// it reads.
func decodeSettings(raw []byte, h *reverseproxy.Handler, t *reverseproxy.HTTPTransport) *refusal.Refusal {
	if len(raw) == 0 {
		return nil
	}
	if r := decode("reverseProxy", raw, h); r != nil {
		return r
	}
	if len(h.TransportRaw) == 0 {
		return nil
	}
	named := struct {
		Protocol string `json:"protocol"`
		*reverseproxy.HTTPTransport
	}{HTTPTransport: t}
	if r := decode("reverseProxy.transport", h.TransportRaw, &named); r != nil {
		return r
	}
	h.TransportRaw = nil
	return nil
}

// decode reads the value at a place of a service's file, as Caddy does. The
// refusal names the place, and never shows the value, which may be anything.
func decode(where string, data []byte, into any) *refusal.Refusal {
	cause := caddy.StrictUnmarshalJSON(data, into)
	if cause == nil {
		return nil
	}
	err := json.Unmarshal(data, reflect.New(reflect.TypeOf(into).Elem()).Interface(), locating)
	sem, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return wrong("%s %s", where, unclear).WithCause(cause)
	}
	for tok := range sem.JSONPointer.Tokens() {
		if strings.Trim(tok, "0123456789") == "" {
			where += "[" + shown(tok) + "]"
		} else {
			where += "." + shown(tok)
		}
	}
	if errors.Is(err, json.ErrUnknownName) {
		return wrong("%s is no setting of Caddy's", where).WithCause(cause)
	}
	return wrong("%s %s", where, mismatch(sem.GoType, sem.JSONKind)).WithCause(cause)
}

// kinds are JSON's kinds of values.
var kinds = map[jsontext.Kind]string{
	'n': "null", 't': "true", 'f': "false", '"': "a string", '0': "a number", '{': "an object", '[': "a list",
}

// mismatch says what a value must be, and what it is.
func mismatch(want reflect.Type, kind jsontext.Kind) string {
	if want == nil {
		return unclear
	}
	for want.Kind() == reflect.Pointer {
		want = want.Elem()
	}
	must, is := "an object", kinds[kind]
	switch k := want.Kind(); {
	case want == reflect.TypeFor[caddy.Duration]() && kind == '"':
		must, is = durations, "another string"
	case want == reflect.TypeFor[caddy.Duration]():
		must = durations
	case k >= reflect.Int && k <= reflect.Uint64:
		must = "a whole number"
	case k == reflect.Bool:
		must = "true or false"
	case k == reflect.String:
		must = "a string"
	case k == reflect.Slice:
		must = "a list"
	}
	if must == is {
		return unclear
	}
	if kind == '0' && strings.Contains(must, "number") {
		is = "one with a fraction or out of range"
	}
	return "must be " + must + ", and is " + is
}

const unclear = "has something that Caddy does not take"

const durations = `a duration such as "10s", or a whole number of nanoseconds`

func wrong(detail string, args ...any) *refusal.Refusal {
	return refusal.New("REVERSEPROXY_INVALID", detail, args...)
}

// shown makes a text that came from outside fit for a sentence.
func shown(s string) string {
	quoted := fmt.Sprintf("%.64q", s)
	return quoted[1 : len(quoted)-1]
}
