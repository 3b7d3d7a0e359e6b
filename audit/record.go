package audit

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits of what a record takes from its caller, so that an agent cannot
// write more than a bounded line.
const (
	// MaxText is the longest string in a record, in characters (Unicode
	// code points); the rest is cut off.
	MaxText = 256

	// MaxScopes is how many scopes are written; the rest is cut off.
	MaxScopes = 64
)

// Context is what an agent said of itself.
type Context struct {
	AgentID   string // agentId
	SessionID string // sessionId
	TaskID    string // taskId
	SkillID   string // skillId
	Tool      string // tool
}

// Record is one event. Every field that may ever be logged is listed here;
// an empty one is not written. Strings are cut at MaxText and escaped.
//
// No field is for a secret, a token, an admin token, a body or a query
// string: a body is its length and its digest.
type Record struct {
	// Time is when it happened, written as ts in milliseconds. Zero means
	// when the writer gives the record its number; leave it so.
	Time time.Time

	// Event is the kind, for example "proxy.call.started".
	Event string

	Service string
	Action  string
	Context *Context
	TokenID string
	Scope   []string

	// Status is the upstream's or the vault's HTTP status.
	Status int

	// Upstream is the URL called. It is cut before a '?' or '#'.
	Upstream string

	// CallID joins the records of one call: proxy.call.started and what
	// ended it.
	CallID    string
	RequestID string
	Method    string

	// ParamsDigest and ParamsBytes describe the parameters of a call.
	ParamsDigest string
	ParamsBytes  int64

	// DurationMS is how long it took, in milliseconds. With it, and only
	// then, the four figures of a body and Redactions are written even if
	// they are zero.
	DurationMS     *float64
	RequestBytes   int64
	ResponseBytes  int64
	RequestDigest  string
	ResponseDigest string
	Redactions     int

	// Error is the code of a refusal.
	Error string

	// Client is the client's address.
	Client string

	Reason string

	// SessionID, TaskID and AgentID are targets, for example of a
	// revocation; what the caller said of itself is in Context.
	SessionID string
	TaskID    string
	AgentID   string

	SecretRef     string
	SecretVersion uint64
	Template      string

	// Count is how many, for example records returned by a query.
	Count *int

	// TTL is in seconds.
	TTL int

	// Kid is the id of a key.
	Kid string

	// ParentID is the token a token was derived from.
	ParentID string

	// Ancestors are the tokens above the parent, its own parent first.
	Ancestors []string

	// Spends are the tokens whose budgets a call counts against.
	Spends []string

	// Registered is set in token.issued if the agent has a record.
	Registered bool

	// Suppressed is how many more of the same were counted, not written.
	Suppressed int

	// Name, Size and SHA256 (hex) describe a file: the sealed segment of
	// audit.segment, or what audit.recovered has moved aside.
	Name   string
	Size   int64
	SHA256 string

	// FirstSeq and LastSeq are the records concerned.
	FirstSeq uint64
	LastSeq  uint64

	// Checkpoint is the signed note of an audit.checkpoint. It is shorter
	// than MaxText, or else cut like any other text.
	Checkpoint string
}

// Events that this package writes, or looks for when it opens a log.
const (
	EventCallStarted = "proxy.call.started"
	EventCall        = "proxy.call"
	EventCallDenied  = "proxy.call.denied"
	EventCallUnknown = "proxy.call.unknown"
	EventRecovered   = "audit.recovered"
	EventSegment     = "audit.segment"
	EventCheckpoint  = "audit.checkpoint"
	EventDropped     = "audit.dropped"
	EventClock       = "audit.clock"
)

// AppendJSON appends the record as one JSON object without seq and prev,
// which the writer adds. It is always one line of printable characters.
func (r *Record) AppendJSON(dst []byte) []byte {
	dst = appendHead(dst, r.Time.UnixMilli(), r.Event)
	dst, _ = r.appendRest(dst)
	return append(dst, '}')
}

// appendHead appends what every line begins with. The writer does this
// apart from the rest because the time, and with a guard the event, are
// known only when the record gets its number.
func appendHead(dst []byte, ts int64, event string) []byte {
	dst = append(dst, headPrefix...)
	dst = strconv.AppendInt(dst, ts, 10)
	dst = append(dst, `,"event":`...)
	return appendText(dst, event)
}

const headPrefix = `{"ts":`

// appendRest appends the fields after the event, each with a comma before
// it. The error comes last, and errAt is where it begins in the result, so
// that the writer can put the guard's in its place.
func (r *Record) appendRest(dst []byte) (_ []byte, errAt int) {
	dst = appendField(dst, "service", r.Service)
	dst = appendField(dst, "action", r.Action)
	if r.Context != nil {
		dst = r.Context.appendField(dst)
	}
	dst = appendField(dst, "tokenId", r.TokenID)
	dst = appendList(dst, "scope", r.Scope)
	dst = appendInt(dst, "status", int64(r.Status))
	if r.Upstream != "" {
		u := r.Upstream
		if i := strings.IndexAny(u, "?#"); i >= 0 {
			u = u[:i]
		}
		dst = appendField(dst, "upstream", u)
	}
	dst = appendField(dst, "callId", r.CallID)
	dst = appendField(dst, "requestId", r.RequestID)
	dst = appendField(dst, "method", r.Method)
	dst = appendField(dst, "paramsDigest", r.ParamsDigest)
	dst = appendInt(dst, "paramsBytes", r.ParamsBytes)
	dst = r.appendFigures(dst)
	dst = appendField(dst, "client", r.Client)
	dst = appendField(dst, "reason", r.Reason)
	dst = appendField(dst, "sessionId", r.SessionID)
	dst = appendField(dst, "taskId", r.TaskID)
	dst = appendField(dst, "agentId", r.AgentID)
	dst = appendField(dst, "secretRef", r.SecretRef)
	dst = appendUint(dst, "secretVersion", r.SecretVersion)
	dst = appendField(dst, "template", r.Template)
	if r.Count != nil {
		dst = appendKey(dst, "count")
		dst = strconv.AppendInt(dst, int64(*r.Count), 10)
	}
	dst = appendInt(dst, "ttl", int64(r.TTL))
	dst = appendField(dst, "kid", r.Kid)
	dst = appendField(dst, "parentId", r.ParentID)
	dst = appendList(dst, "ancestors", r.Ancestors)
	dst = appendList(dst, "spends", r.Spends)
	if r.Registered {
		dst = append(dst, `,"registered":true`...)
	}
	dst = appendInt(dst, "suppressed", int64(r.Suppressed))
	dst = appendField(dst, "name", r.Name)
	dst = appendInt(dst, "size", r.Size)
	dst = appendField(dst, "sha256", r.SHA256)
	dst = appendUint(dst, "firstSeq", r.FirstSeq)
	dst = appendUint(dst, "lastSeq", r.LastSeq)
	dst = appendField(dst, "checkpoint", r.Checkpoint)
	errAt = len(dst)
	return appendField(dst, "error", r.Error), errAt
}

// appendFigures appends what is known once an answer has ended.
func (r *Record) appendFigures(dst []byte) []byte {
	ended := r.DurationMS != nil
	if ended {
		dst = appendKey(dst, "durationMs")
		dst = appendMillis(dst, *r.DurationMS)
	}
	figure := func(key string, v int64) {
		if ended || v != 0 {
			dst = appendKey(dst, key)
			dst = strconv.AppendInt(dst, v, 10)
		}
	}
	figure("requestBytes", r.RequestBytes)
	figure("responseBytes", r.ResponseBytes)
	figure("redactions", int64(r.Redactions))
	dst = appendField(dst, "requestDigest", r.RequestDigest)
	return appendField(dst, "responseDigest", r.ResponseDigest)
}

func (c *Context) appendField(dst []byte) []byte {
	dst = append(dst, `,"context":{`...)
	start := len(dst)
	dst = appendField(dst, "agentId", c.AgentID)
	dst = appendField(dst, "sessionId", c.SessionID)
	dst = appendField(dst, "taskId", c.TaskID)
	dst = appendField(dst, "skillId", c.SkillID)
	dst = appendField(dst, "tool", c.Tool)
	if len(dst) > start { // drop the first comma
		dst = append(dst[:start], dst[start+1:]...)
	}
	return append(dst, '}')
}

func appendKey(dst []byte, key string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}

func appendField(dst []byte, key, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(appendKey(dst, key), value)
}

// appendList writes at most MaxScopes texts.
func appendList(dst []byte, key string, list []string) []byte {
	if len(list) == 0 {
		return dst
	}
	dst = append(appendKey(dst, key), '[')
	for i, s := range list[:min(len(list), MaxScopes)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, s)
	}
	return append(dst, ']')
}

func appendInt(dst []byte, key string, v int64) []byte {
	if v == 0 {
		return dst
	}
	return strconv.AppendInt(appendKey(dst, key), v, 10)
}

func appendUint(dst []byte, key string, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return strconv.AppendUint(appendKey(dst, key), v, 10)
}

// appendMillis writes milliseconds to the microsecond. JSON has no NaN.
func appendMillis(dst []byte, ms float64) []byte {
	if math.IsNaN(ms) || math.IsInf(ms, 0) {
		return append(dst, '0')
	}
	return strconv.AppendFloat(dst, math.Round(ms*1000)/1000, 'f', -1, 64)
}
