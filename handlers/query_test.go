package handlers

import (
	"encoding/json"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/vault"
)

func TestParseStream(t *testing.T) {
	none := audit.FollowOptions{Filters: map[string]string{}}
	for query, want := range map[string]streamRequest{
		"":                       {FollowOptions: none},
		"follow=false&last=1000": {FollowOptions: none, once: true, last: 1000},
		"after=0":                {FollowOptions: none, resume: true},
		"since=1&until=9007199254740992&event=a%20b": {FollowOptions: audit.FollowOptions{Since: 1, Until: 1 << 53, Filters: map[string]string{"event": "a b"}}},
	} {
		if got, refused := parseStream(query, nil); refused != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", query, got, refused)
		}
	}
	for query, code := range map[string]string{
		"%zz": "QUERY_INVALID", "a;b": "QUERY_INVALID", "event=a&event=b": "QUERY_INVALID", "last=1&last=1": "QUERY_INVALID",
		"last=1001": "LAST_INVALID", "last=-1": "LAST_INVALID", "last=": "LAST_INVALID", "last=1e3": "LAST_INVALID",
		"since=0": "SINCE_INVALID", "since=01": "SINCE_INVALID", "until=9007199254740993": "UNTIL_INVALID", "until=99999999999999999999": "UNTIL_INVALID",
		"after=-1": "AFTER_INVALID", "after=%2B1": "AFTER_INVALID", "follow=yes": "FOLLOW_INVALID",
	} {
		if _, refused := parseStream(query, nil); refused == nil || refused.Code != code {
			t.Errorf("%q: %v instead of %s", query, refused, code)
		}
	}
	if got, refused := parseStream("after=7", []string{"9"}); refused != nil || got.After != 9 || !got.resume {
		t.Errorf("Last-Event-ID does not count more: %+v, %v", got, refused)
	}
	for _, header := range [][]string{{"x"}, {""}, {"1", "2"}, {"-1"}, {"9007199254740993"}} {
		if _, refused := parseStream("", header); refused == nil {
			t.Errorf("Last-Event-ID %q", header)
		}
	}
}

// FuzzParseStream holds what is accepted to its bounds, and to being read the
// same when it is written plainly.
func FuzzParseStream(f *testing.F) {
	for _, s := range []string{"", "event=proxy.call&agentId=tony", "last=5&follow=true", "since=1&until=2&after=3", "a=%00&b=%ff", "seq=7", "context.agentId=x", "=", "last=1;follow=false"} {
		f.Add(s, "")
		f.Add(s, "12")
	}
	f.Fuzz(func(t *testing.T, query, lastID string) {
		var header []string
		if lastID != "" {
			header = []string{lastID}
		}
		s, refused := parseStream(query, header)
		if refused != nil {
			return
		}
		if s.last < 0 || s.last > queryLimitMax || s.Since < 0 || s.Since > maxInteger || s.Until < 0 || s.Until > maxInteger || s.After > maxInteger || s.After > 0 && !s.resume {
			t.Fatalf("%+v", s)
		}
		plain := url.Values{}
		for name, v := range s.Filters {
			plain.Set(name, v)
		}
		number := func(name string, n int64) {
			if n != 0 {
				plain.Set(name, strconv.FormatInt(n, 10))
			}
		}
		number("since", s.Since)
		number("until", s.Until)
		number("last", int64(s.last))
		plain.Set("follow", strconv.FormatBool(!s.once))
		if s.resume {
			plain.Set("after", strconv.FormatUint(s.After, 10))
		}
		again, refused := parseStream(plain.Encode(), nil)
		if refused != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%q is %+v, and as %q %+v: %v", query, s, plain.Encode(), again, refused)
		}
		checkFilters(t, s.Filters)
	})
}

// checkFilters has filters refused, or be those of a field.
func checkFilters(t *testing.T, filters map[string]string) {
	t.Helper()
	if refused := vault.CheckFilters(filters); refused != nil {
		if refused.Status != 400 {
			t.Fatalf("%q: %v", filters, refused)
		}
		return
	}
	for name := range filters {
		for _, c := range []byte(name) {
			if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
				t.Fatalf("a field %q", name)
			}
		}
	}
}

// FuzzParseQuery is the same for the body of a query.
func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"filters":{"event":"proxy.call","status":200,"x":true},"limit":100}`, `{"since":1,"until":2.0,"before":9007199254740992}`,
		`{"filters":null,"limit":null}`, `{"filters":{"a":null}}`, `{"filters":{"a":"\ud800"}}`, `{"filters":{"seq":1e3}}`, `{"limit":1e9}`, `{"filters":{"a":"1","a":"2"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q, refused := parseQuery(body)
		if refused != nil {
			return
		}
		if q.Limit < 1 || q.Limit > queryLimitMax || q.Since < 0 || q.Since > maxInteger || q.Until < 0 || q.Until > maxInteger || q.Before > maxInteger {
			t.Fatalf("%+v", q)
		}
		names := slices.Collect(maps.Keys(q.Filters))
		if hides := q.Without != ""; hides != (!slices.Contains(names, "event") && !slices.Contains(names, "seq")) {
			t.Fatalf("%s leaves out %q", body, q.Without)
		}
		plain := map[string]any{"filters": q.Filters, "limit": q.Limit}
		for name, n := range map[string]int64{"since": q.Since, "until": q.Until, "before": int64(q.Before)} {
			if n != 0 {
				plain[name] = n
			}
		}
		b, err := json.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		again, refused := parseQuery(b)
		if refused != nil || !reflect.DeepEqual(again, q) {
			t.Fatalf("%s is %+v, and as %s %+v: %v", body, q, b, again, refused)
		}
		checkFilters(t, q.Filters)
	})
}
