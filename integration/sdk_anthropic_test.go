package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestAnthropic(t *testing.T) {
	sdkRun(t, sdk{
		name: "anthropic", auth: "X-Api-Key",
		scopes:   []string{"anthropic:messages:write", "anthropic:models:read", "anthropic:files:write"},
		standIn:  anthropic,
		env:      func(s *server) []string { return []string{"ANTHROPIC_BASE_URL=" + s.proxyURL("anthropic")} },
		keyNames: []string{"ANTHROPIC_API_KEY"},
		want: `{
			"message": [{"type": "text", "text": "hé"}],
			"events": ["message_start", "content_block_start", "h", "é", "content_block_stop", "message_delta", "message_stop"],
			"texts": ["h", "é"], "streamed": "hé",
			"tokens": 14, "bearer": 14,
			"models": ["claude-a", "claude-b"], "file": "file_1",
			"upstreamRefuses": {"class": "AuthenticationError", "status": 401, "message": "401 {\"type\":\"error\",\"error\":{\"type\":\"authentication_error\",\"message\":\"invalid x-api-key\"},\"request_id\":\"req_011\"}", "vaultError": null},
			"upstreamOverloaded": {"class": "OverloadedError", "status": 529, "message": "529 {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"},\"request_id\":\"req_011\"}", "vaultError": null},
			"vaultRefuses": {"class": "PermissionDeniedError", "status": 403, "message": "403 INSUFFICIENT_SCOPE:anthropic:batches:read: the action batches.list needs the scope anthropic:batches:read, which the token does not have; ask vault.issueToken for a token for anthropic with the scope anthropic:batches:read", "vaultError": "INSUFFICIENT_SCOPE:anthropic:batches:read"},
			"notAToken": {"class": "AuthenticationError", "status": 401, "message": "401 TOKEN_INVALID: the token is not valid: it is not a signed token of three parts", "vaultError": "TOKEN_INVALID"}
		}`,
	})
}

// anthropic answers as api.anthropic.com does.
func anthropic(st *standIn) http.HandlerFunc {
	event := func(kind, more string) string {
		return "event: " + kind + "\n" + `data: {"type":"` + kind + `"` + more + `}`
	}
	delta := func(text string) string {
		return event("content_block_delta", fmt.Sprintf(`,"index":0,"delta":{"type":"text_delta","text":%q}`, text))
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Request-Id", "req_011")
		// The library's own, which wins over the template's.
		if v := r.Header["Anthropic-Version"]; len(v) != 1 || v[0] <= "2023-06-01" {
			st.t.Errorf("%s: anthropic-version is %q", r.URL, v)
		}
		body, _ := io.ReadAll(r.Body) // from memory
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/messages":
			switch {
			case strings.Contains(string(body), `"overloaded"`):
				w.Header().Set("Retry-After-Ms", "1")
				answerJSON(w, 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_011"}`)
			case strings.Contains(string(body), `"stream":true`):
				st.events(w, r,
					event("message_start", `,"message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":14,"output_tokens":1}}`),
					event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`),
					event("ping", ""),
					delta("h"), delta("é"),
					event("content_block_stop", `,"index":0`),
					event("message_delta", `,"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}`),
					event("message_stop", ""))
			default:
				answerJSON(w, 200, `{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"hé"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":14,"output_tokens":2}}`)
			}
		case "POST /v1/messages/count_tokens":
			answerJSON(w, 200, `{"input_tokens":14}`)
		case "GET /v1/models":
			page := `{"data":[{"type":"model","id":"claude-a","display_name":"A","created_at":"2025-01-01T00:00:00Z"}],"has_more":true,"first_id":"claude-a","last_id":"claude-a"}`
			if r.URL.Query().Get("after_id") == "claude-a" {
				page = `{"data":[{"type":"model","id":"claude-b","display_name":"B","created_at":"2025-01-01T00:00:00Z"}],"has_more":false,"first_id":"claude-b","last_id":"claude-b"}`
			}
			answerJSON(w, 200, page)
		case "GET /v1/models/not-yours":
			answerJSON(w, 401, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"},"request_id":"req_011"}`)
		case "POST /v1/files":
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			if _, header, err := r.FormFile("file"); err != nil || header.Filename != "a.txt" {
				st.t.Errorf("upload: %v", err)
			}
			if !strings.Contains(r.Header.Get("Anthropic-Beta"), "files-api-2025-04-14") {
				st.t.Errorf("anthropic-beta is %q", r.Header["Anthropic-Beta"])
			}
			answerJSON(w, 200, `{"type":"file","id":"file_1","filename":"a.txt","mime_type":"text/plain","size_bytes":5,"created_at":"2025-01-01T00:00:00Z","downloadable":false}`)
		default:
			st.t.Errorf("the stand-in has no %s %s", r.Method, r.URL.Path)
			answerJSON(w, 404, `{"type":"error","error":{"type":"not_found_error","message":"Not found"}}`)
		}
	}
}
