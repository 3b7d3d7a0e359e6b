package integration

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

func TestOctokit(t *testing.T) {
	sdkRun(t, sdk{
		name: "github", auth: "Authorization", scheme: "Bearer",
		scopes:   []string{"github:repos:read", "github:issues:read", "github:issues:write"},
		standIn:  gitHub,
		env:      func(s *server) []string { return []string{"GITHUB_API_URL=" + s.proxyURL("github")} },
		keyNames: []string{"GITHUB_TOKEN"},
		want: `{
			"repo": "o/r", "limit": "4999",
			"content": "# hé\n", "raw": "# hé\n",
			"issues": [1, 2, 3, 4, 5], "pages": [2, 2, 1],
			"renamed": "o/new", "renamedIssue": "Ünïcode",
			"created": "Ünïcode", "createdStatus": 201,
			"notModified": {"class": "RequestError", "status": 304, "message": "Not modified", "vaultError": null},
			"upstreamRefuses": {"class": "RequestError", "status": 404, "message": "Not Found - https://docs.github.com/rest", "vaultError": null},
			"vaultRefuses": {"class": "RequestError", "status": 403, "message": "INSUFFICIENT_SCOPE:github:prs:write: the action pulls.merge needs the scope github:prs:write, which the token does not have; ask vault.issueToken for a token for github with the scope github:prs:write", "vaultError": "INSUFFICIENT_SCOPE:github:prs:write"},
			"noEndpoint": {"class": "RequestError", "status": 404, "message": "NO_ENDPOINT: the service github has no endpoint for this method and path; the path exists with GET (repo.get)", "vaultError": "NO_ENDPOINT"},
			"archive": [302, "https://codeload.example/o/r/tar/main?token=once"]
		}`,
	})
}

// gitHub answers as api.github.com does: with absolute URLs of its own, which
// name repositories by their number where it leads on.
func gitHub(st *standIn) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Ratelimit-Remaining", "4999")
		h.Set("X-Github-Request-Id", "ABCD:1")
		h.Set("Etag", `"abc"`)
		body, _ := io.ReadAll(r.Body) // from memory
		issue := func() {
			var in struct{ Title, Body string }
			decode(st.t, string(body), &in)
			if in.Body != "a\nb" {
				st.t.Errorf("the issue's text is %q", in.Body)
			}
			h.Set("Location", st.url()+"/repos/o/r/issues/6")
			answerJSON(w, 201, fmt.Sprintf(`{"number":6,"title":%q}`, in.Title))
		}
		// The path as it was sent: an encoded slash is not a slash.
		switch r.Method + " " + r.URL.EscapedPath() {
		case "GET /repos/o/r":
			if r.Header.Get("If-None-Match") != "" {
				if got := r.Header.Get("If-None-Match"); got != `"abc"` && got != `W/"abc"` {
					st.t.Errorf("If-None-Match is %q", got)
				}
				w.WriteHeader(http.StatusNotModified)
				return
			}
			answerJSON(w, 200, `{"id":1,"full_name":"o/r"}`)
		case "GET /repos/o/r/contents/docs%2Fread%20me.md":
			if r.Header.Get("Accept") == "application/vnd.github.raw+json" || r.Header.Get("Accept") == "application/vnd.github.v3.raw" {
				h.Set("Content-Type", "application/vnd.github.raw+json; charset=utf-8")
				_, _ = io.WriteString(w, "# hé\n") // the client's loss
				return
			}
			answerJSON(w, 200, `{"type":"file","encoding":"base64","path":"docs/read me.md","content":"IyBow6kK\n"}`)
		case "GET /repos/o/r/issues", "GET /repositories/1/issues":
			next := func(page string) {
				h.Set("Link", fmt.Sprintf(`<%[1]s/repositories/1/issues?per_page=2&page=%[2]s>; rel="next", <%[1]s/repositories/1/issues?per_page=2&page=3>; rel="last"`, st.url(), page))
			}
			switch r.URL.Query().Get("page") {
			case "":
				next("2")
				answerJSON(w, 200, `[{"number":1},{"number":2}]`)
			case "2":
				next("3")
				answerJSON(w, 200, `[{"number":3},{"number":4}]`)
			default:
				answerJSON(w, 200, `[{"number":5}]`)
			}
		case "GET /repos/o/old":
			h.Set("Location", st.url()+"/repositories/7")
			answerJSON(w, 301, `{"message":"Moved Permanently","url":"`+st.url()+`/repositories/7"}`)
		case "GET /repositories/7":
			answerJSON(w, 200, `{"id":7,"full_name":"o/new"}`)
		case "POST /repos/o/old/issues":
			h.Set("Location", st.url()+"/repositories/7/issues")
			answerJSON(w, 307, `{"message":"Temporary Redirect"}`)
		case "POST /repos/o/r/issues", "POST /repositories/7/issues":
			issue()
		case "GET /repos/o/r/tarball/main":
			h.Set("Location", "https://codeload.example/o/r/tar/main?token=once")
			w.WriteHeader(302)
		case "GET /repos/o/private":
			answerJSON(w, 404, `{"message":"Not Found","documentation_url":"https://docs.github.com/rest","status":"404"}`)
		default:
			st.t.Errorf("the stand-in has no %s %s", r.Method, r.URL)
			answerJSON(w, 404, `{"message":"Not Found"}`)
		}
	}
}
