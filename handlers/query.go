package handlers

import (
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
)

// Bounds of an audit query (wire.md).
const (
	queryLimit    = 100
	queryLimitMax = 1000
)

// auditQuery answers POST /vault.audit.query.
func auditQuery(rq *request, body []byte) *refusal.Refusal {
	if refused := rq.identifyOrAdmin(); refused != nil {
		return refused
	}
	q, refused := parseQuery(body)
	if refused != nil {
		return refused
	}
	res, refused := rq.vault.Query(rq.Context(), rq.caller, q)
	if refused != nil {
		return refused
	}
	size := 2
	for _, line := range res.Lines {
		size += len(line) + 1
	}
	out := append(make([]byte, 0, size), '[')
	for i, line := range res.Lines {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, line...)
	}
	if res.Next > 0 && len(res.Lines) < q.Limit {
		// The search stopped at its bound, not at the limit.
		rq.w.Header().Set("Vault-Audit-Next", strconv.FormatUint(res.Next, 10))
	}
	rq.answerRaw(200, append(out, ']'))
	return nil
}

// parseQuery reads the body of an audit query.
func parseQuery(body []byte) (q audit.Query, _ *refusal.Refusal) {
	var in struct {
		Filters map[string]jsontext.Value `json:"filters"`
		Limit   jsontext.Value            `json:"limit"`
		Since   jsontext.Value            `json:"since"`
		Until   jsontext.Value            `json:"until"`
		Before  jsontext.Value            `json:"before"`
	}
	if refused := decode(body, &in, false); refused != nil {
		return q, refused
	}
	q = audit.Query{Limit: queryLimit, Filters: make(map[string]string, len(in.Filters))}
	for name, v := range in.Filters {
		switch v.Kind() {
		case '"':
			if err := json.Unmarshal(v, new(string)); err != nil {
				return q, decodeRefusal(err)
			}
			s, err := jsontext.AppendUnquote(nil, v)
			if err != nil {
				return q, decodeRefusal(err)
			}
			q.Filters[name] = string(s)
		case '0', 't', 'f':
			q.Filters[name] = string(v)
		default:
			return q, refusal.New("FILTERS_INVALID:"+name, "a filter's value is a string, a number, true or false")
		}
	}
	for _, f := range [...]struct {
		name  string
		value jsontext.Value
		set   func(int64)
	}{
		{"limit", in.Limit, func(n int64) { q.Limit = int(min(n, queryLimitMax)) }},
		{"since", in.Since, func(n int64) { q.Since = n }},
		{"until", in.Until, func(n int64) { q.Until = n }},
		{"before", in.Before, func(n int64) { q.Before = uint64(n) }},
	} {
		if f.value == nil || f.value.Kind() == 'n' {
			continue
		}
		n, ok := integer(f.value, maxInteger)
		if !ok || n < 1 {
			return q, fieldInvalid(f.name, "%s is a whole number, at least 1", f.name)
		}
		f.set(n)
	}
	// Checkpoints are about the log itself. Who asks for what happened gets
	// them for asking; the stream and exports have every record.
	_, event := q.Filters["event"]
	if _, seq := q.Filters["seq"]; !event && !seq {
		q.Without = audit.EventCheckpoint
	}
	return q, nil
}
