package integration

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

func TestOpenAI(t *testing.T) {
	sdkRun(t, sdk{
		name: "openai", base: "/v1", auth: "Authorization", scheme: "Bearer",
		scopes: []string{
			"openai:chat:write", "openai:responses:write", "openai:embeddings:write", "openai:files:read", "openai:files:write",
			"openai:audio:write", "openai:moderations:write", "openai:models:read",
		},
		standIn: openAI,
		env: func(s *server) []string {
			once := s.issueWith(`"service":"openai","scope":["openai:moderations:write"],"maxCalls":1`)
			return []string{"OPENAI_BASE_URL=" + s.proxyURL("openai"), "OPENAI_ONCE=" + once.Token}
		},
		keyNames: []string{"OPENAI_API_KEY"},
		givesUp:  true,
		want: `{
			"chat": "hé", "requestId": "req_1",
			"deltas": ["h", "é", "."], "streamed": "hé.", "events": ["response.created", "response.output_text.delta", "response.completed"],
			"gaveUpAfter": "h",
			"embeddings": [[0.5, -1], [0.25, 2]],
			"file": "file-1", "content": "{\"prompt\":\"ü\"}\n", "speech": "fffb90640000",
			"files": ["file-1", "file-2", "file-3"],
			"retried": "modr-1",
			"upstreamRefuses": {"class": "AuthenticationError", "status": 401, "message": "401 Incorrect API key provided: [REDACTED:openai_key].", "vaultError": null},
			"vaultRefuses": {"class": "PermissionDeniedError", "status": 403, "message": "403 \"INSUFFICIENT_SCOPE:openai:vector_stores:read\"", "vaultError": "INSUFFICIENT_SCOPE:openai:vector_stores:read"},
			"noEndpoint": {"class": "NotFoundError", "status": 404, "message": "404 \"NO_ENDPOINT\"", "vaultError": "NO_ENDPOINT"},
			"notAToken": {"class": "AuthenticationError", "status": 401, "message": "401 \"TOKEN_INVALID\"", "vaultError": "TOKEN_INVALID"},
			"spent": {"class": "RateLimitError", "status": 429, "message": "429 \"BUDGET_EXHAUSTED\"", "vaultError": "BUDGET_EXHAUSTED"}, "tries": 2
		}`,
	})
}

// openAI answers as api.openai.com does.
func openAI(st *standIn) http.HandlerFunc {
	chunk := func(content string) string {
		return fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"role":"assistant","content":%q},"finish_reason":null}]}`, content)
	}
	const last = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"."},"finish_reason":"stop"}]}`
	response := func(kind, more string) string {
		return `event: response.` + kind + "\n" + `data: {"type":"response.` + kind + `",` + more + `}`
	}
	var moderations atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "req_1")
		body, _ := io.ReadAll(r.Body) // from memory
		streamed := strings.Contains(string(body), `"stream":true`)
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/chat/completions":
			if streamed {
				st.events(w, r, ": a comment", chunk("h"), chunk("é"), last, "data: [DONE]")
				return
			}
			answerJSON(w, 200, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"h\u00e9","refusal":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`)
		case "POST /v1/responses":
			st.events(w, r,
				response("created", `"sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","output":[]}`),
				response("output_text.delta", `"sequence_number":1,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"hi"`),
				response("completed", `"sequence_number":2,"response":{"id":"resp_1","object":"response","status":"completed","output":[]}`))
		case "POST /v1/embeddings":
			if !strings.Contains(string(body), `"encoding_format":"base64"`) {
				st.t.Errorf("embeddings are asked for as %s", body)
			}
			answerJSON(w, 200, fmt.Sprintf(`{"object":"list","data":[{"object":"embedding","index":0,"embedding":%q},{"object":"embedding","index":1,"embedding":%q}],"model":"text-embedding-3-small","usage":{"prompt_tokens":2,"total_tokens":2}}`,
				floats(0.5, -1), floats(0.25, 2)))
		case "POST /v1/files":
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			f, header, err := r.FormFile("file")
			if err != nil {
				st.t.Errorf("upload: %v", err)
				return
			}
			content, _ := io.ReadAll(f) // from memory
			if string(content) != "{\"prompt\":\"ü\"}\n" || header.Filename != "träin.jsonl" || r.FormValue("purpose") != "fine-tune" {
				st.t.Errorf("uploaded %q as %q for %q", content, header.Filename, r.FormValue("purpose"))
			}
			answerJSON(w, 200, `{"id":"file-1","object":"file","bytes":16,"created_at":1,"filename":"träin.jsonl","purpose":"fine-tune"}`)
		case "GET /v1/files/file-1/content":
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = io.WriteString(w, "{\"prompt\":\"ü\"}\n") // the client's loss
		case "GET /v1/files":
			page := `{"object":"list","data":[{"id":"file-1","object":"file"},{"id":"file-2","object":"file"}],"first_id":"file-1","last_id":"file-2","has_more":true}`
			if r.URL.Query().Get("after") == "file-2" {
				page = `{"object":"list","data":[{"id":"file-3","object":"file"}],"first_id":"file-3","last_id":"file-3","has_more":false}`
			}
			answerJSON(w, 200, page)
		case "POST /v1/audio/speech":
			w.Header().Set("Content-Type", "audio/mpeg")
			_, _ = w.Write([]byte{0xff, 0xfb, 0x90, 0x64, 0, 0}) // the client's loss
		case "POST /v1/moderations":
			if moderations.Add(1) == 1 {
				w.Header().Set("Retry-After-Ms", "1")
				answerJSON(w, 429, `{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}`)
				return
			}
			answerJSON(w, 200, `{"id":"modr-1","model":"omni-moderation-latest","results":[]}`)
		case "GET /v1/models/not-yours":
			// Vendors like to repeat the key.
			answerJSON(w, 401, fmt.Sprintf(`{"error":{"message":%s,"type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, quote("Incorrect API key provided: "+secret+".")))
		default:
			st.t.Errorf("the stand-in has no %s %s", r.Method, r.URL.Path)
			answerJSON(w, 404, `{"error":{"message":"Invalid URL","type":"invalid_request_error","param":null,"code":null}}`)
		}
	}
}

// floats encodes an embedding as OpenAI does.
func floats(values ...float32) string {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return base64.StdEncoding.EncodeToString(b)
}
