package handlers

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
)

// problem is a refusal as it is sent: a problem document (RFC 9457) with the
// members error and requestId for programs, and hint for whoever wants to
// know what to do next.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitzero"`
	Error     string `json:"error"`
	RequestID string `json:"requestId"`
	Hint      string `json:"hint,omitzero"`

	// Where libraries of vendors look for what to tell their user: Octokit
	// and Stripe. Only clients that take any JSON for an answer get them.
	Message     string `json:"message,omitzero"`
	Description string `json:"error_description,omitzero"`
}

// maxCode is how much of a code is sent and recorded, in bytes: its detail may
// be a list of names that a client chose.
const maxCode = 256

// refuse is where every refusal becomes its record and its answer.
func (rq *request) refuse(r *refusal.Refusal) {
	code := rq.recordRefusal(r)
	h := rq.w.Header()
	h.Set("Content-Type", rq.problemType())
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vault-Error", code)
	if rq.ProtoMajor == 1 && rq.Header["Expect"] != nil {
		// The client may wait for this answer before it sends its body, and
		// the server would wait for the body to keep the connection.
		h.Set("Connection", "close")
	}
	rq.offerNonce(code)
	if len(r.Challenge) > 0 {
		h["Www-Authenticate"] = r.Challenge
	} else if r.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="caddyvault"`)
	}
	if refusal.Lasting(code) {
		h.Set("X-Should-Retry", "false") // libraries of OpenAI, Anthropic and others look here
	} else if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(float64(r.RetryAfter)/float64(time.Second)))))
	}
	status := r.Status
	var body []byte
	if rq.oauth {
		var name string
		if name, status = oauthError(r); status != http.StatusUnauthorized {
			h.Del("WWW-Authenticate")
		}
		body = oauthText(name, r)
		h.Set("Content-Type", "application/json")
	} else {
		body = rq.problemText(r, code)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	rq.w.WriteHeader(status)
	if rq.Method != http.MethodHead {
		_, _ = rq.w.Write(body)
	}
}

// recordRefusal writes the record of a refusal and returns its code as it is
// sent.
func (rq *request) recordRefusal(r *refusal.Refusal) string {
	code := printable(r.Code, maxCode)
	if rq.server.OnRefused != nil {
		rq.server.OnRefused(r.Code)
	}
	if r.Cause != nil && rq.server.OnError != nil {
		rq.server.OnError(rq.Request, r)
	}
	if !r.Recorded && rq.vault != nil {
		rec := rq.record
		rec.Event = rq.event + ".denied"
		rec.Error = code
		rec.RequestID = rq.requestID()
		rec.Client = rq.clientText()
		entry := audit.Entry{Record: rec}
		// A full queue or a log that cannot be written is what the answer
		// says already, or what /health says.
		if rq.known {
			_ = rq.vault.Audit().Enqueue(entry)
		} else {
			_ = rq.vault.Audit().EnqueueRefusal(rq.caller.Client, entry)
		}
	}
	return code
}

// problemText is what is sent of a refusal.
func (rq *request) problemText(r *refusal.Refusal, code string) []byte {
	detail, hint := printable(r.Detail, 1024), printable(r.Hint, 1024)
	text := code + ": " + detail
	if rq.fromGit() {
		return []byte(strings.TrimSuffix(text+"\n"+hint, "\n") + "\n")
	}
	base := refusal.Base(code)
	p := problem{
		Type:      "urn:caddyvault:error:" + base,
		Title:     title(base),
		Status:    r.Status,
		Detail:    detail,
		Error:     code,
		RequestID: rq.requestID(),
		Hint:      hint,
	}
	if rq.problemType() == "application/json" {
		if hint != "" {
			text += "; " + hint
		}
		p.Message, p.Description = text, text
	}
	body, err := json.Marshal(p, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return []byte(`{"error":"INTERNAL"}`)
	}
	return body
}

// fromGit reports whether the client is git, which shows its user plain text
// and nothing else.
func (rq *request) fromGit() bool {
	return rq.server.proxies(rq.URL) && strings.HasPrefix(rq.Header.Get("User-Agent"), "git/")
}

// problemType is the media type of a refusal. A service's own library that
// accepts JSON, but not this kind of it, would not look into a refusal of any
// other type: Octokit calls it an unknown error.
func (rq *request) problemType() string {
	const usual = "application/problem+json"
	if !rq.server.proxies(rq.URL) {
		return usual
	}
	if rq.fromGit() {
		return "text/plain; charset=utf-8"
	}
	takesJSON := false
	for _, list := range rq.Header["Accept"] {
		for media := range strings.SplitSeq(strings.ToLower(list), ",") {
			media, _, _ = strings.Cut(media, ";")
			switch media = strings.TrimSpace(media); media {
			case usual, "application/*", "*/*":
				return usual
			}
			takesJSON = takesJSON || strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json")
		}
	}
	if takesJSON {
		return "application/json"
	}
	return usual
}

// title is the code in words: what RFC 9457 asks to be the same for every
// problem of a type.
func title(base string) string {
	words := strings.ToLower(strings.ReplaceAll(base, "_", " "))
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

// printable returns s with everything but printable ASCII replaced, cut at
// most bytes: codes stand in a header.
func printable(s string, most int) string {
	clean := true
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			clean = false
			break
		}
	}
	if !clean {
		s = strings.Map(func(r rune) rune {
			if r < 0x20 || r > 0x7e {
				return '?'
			}
			return r
		}, s)
	}
	if len(s) > most {
		s = s[:most]
	}
	return s
}

// answer sends a success as JSON.
func (rq *request) answer(value any) *refusal.Refusal {
	body, err := json.Marshal(value)
	if err != nil {
		return refusal.New(refusal.Internal, "the answer could not be encoded").WithCause(err)
	}
	rq.answerRaw(http.StatusOK, body)
	return nil
}

// answerRaw sends JSON that is encoded already.
func (rq *request) answerRaw(status int, body []byte) {
	h := rq.w.Header()
	rq.offerNonce("")
	h.Set("Content-Type", "application/json")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	rq.w.WriteHeader(status)
	if rq.Method != http.MethodHead {
		_, _ = rq.w.Write(body)
	}
}
