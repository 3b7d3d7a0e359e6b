package upstream

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Only so many answers that need much memory are undone at a time. A place is
// free again when its answer is over, however it ends.
func TestPlacesForHungryEncodings(t *testing.T) {
	goOn := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		encoding := r.URL.Query().Get("encoding")
		var b bytes.Buffer
		z := compress[encoding](&b)
		_, _ = io.WriteString(z, strings.Repeat(secret+" ", 100))
		_ = z.Flush()
		w.Header().Set("Content-Encoding", encoding)
		_, _ = w.Write(b.Bytes())
		_ = http.NewResponseController(w).Flush()
		if r.URL.Query().Get("wait") != "" {
			<-goOn
		}
		if r.URL.Query().Get("break") != "" {
			panic(http.ErrAbortHandler)
		}
		b.Reset()
		_ = z.Close()
		_, _ = w.Write(b.Bytes())
	}))
	defer upstream.Close()
	g, site := newGateway(t, upstream.URL, "")
	get := func(query string) *http.Response {
		t.Helper()
		res, err := http.Get(site.URL + "/?" + query)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	places := cap(hungry)
	var open []*http.Response
	for i := range places {
		open = append(open, get("wait=1&encoding="+[]string{"zstd", "br"}[i%2]))
	}
	if len(hungry) != places {
		t.Fatalf("%d places are taken", len(hungry))
	}
	for _, encoding := range []string{"zstd", "br"} {
		res := get("encoding=" + encoding)
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if refused := <-g.refused; refused.Code != "UPSTREAM_PROTOCOL" || res.StatusCode != refused.Status || strings.Contains(string(body), secret) {
			t.Errorf("%s: %s, %d %s", encoding, refused.Code, res.StatusCode, body)
		}
		<-g.results
	}
	res := get("encoding=gzip")
	if body, err := io.ReadAll(res.Body); err != nil || strings.Contains(string(body), secret) {
		t.Errorf("gzip: %v, %.100s", err, body)
	}
	res.Body.Close()
	<-g.results

	close(goOn)
	for _, res := range open {
		if body, err := io.ReadAll(res.Body); err != nil || strings.Contains(string(body), secret) {
			t.Errorf("%v, %.100s", err, body)
		}
		res.Body.Close()
		<-g.results
	}
	for i := range 2 * places { // none of them keeps its place
		res := get([]string{"encoding=zstd", "encoding=br", "encoding=br&break=1", "encoding=zstd&break=1"}[i%4])
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("after %d: %d", i, res.StatusCode)
		}
		<-g.results
	}
	if len(hungry) != 0 {
		t.Errorf("%d places are taken when nothing is under way", len(hungry))
	}
}
