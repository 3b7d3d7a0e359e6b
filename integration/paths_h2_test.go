package integration

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Targets are what only HTTP/2 can say: there a target is a field of its
// own, with no line around it. The fields replace the usual ones of the same
// name; a field without value is left out.
var h2Targets = []struct {
	fields [][2]string
	target
}{
	{[][2]string{{":path", "/proxy/svc/public/a"}}, target{then: "/v1/public/a"}},
	{[][2]string{{":path", "/proxy/svc/public/../admin/x"}}, target{then: "PARAM_INVALID:path"}},
	{[][2]string{{":path", "/proxy/svc/public/%2e%2e/admin/x"}}, target{then: "PARAM_INVALID:path"}},
	{[][2]string{{":path", `/proxy/svc/public/..\admin/x`}}, target{then: "PARAM_INVALID:path"}},
	{[][2]string{{":path", "/proxy/svc/public/a b"}}, target{then: "PARAM_INVALID:path"}},
	{[][2]string{{":path", "/proxy/svc/public/a HTTP/1.1"}}, target{then: "PARAM_INVALID:path"}},
	{[][2]string{{":path", "/proxy/svc/public/a?b HTTP/1.1"}}, target{then: "PARAM_INVALID:query"}},
	{[][2]string{{":path", "/proxy/svc/public/a?b c"}}, target{then: "PARAM_INVALID:query"}},
	{[][2]string{{":path", "/proxy/svc/public/a#b"}}, target{then: "PARAM_INVALID:path"}},
	{[][2]string{{":path", "/proxy/svc/public/a?b#c"}}, target{then: "PARAM_INVALID:query"}},
	{[][2]string{{":path", "/proxy/svc/public/a\r\nX-Injected: 1"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a?b\r\nX-Injected: 1"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a\x00"}}, target{then: notHTTP}},
	{[][2]string{{":path", "//proxy/svc/public/a"}}, target{then: notVault}},
	{[][2]string{{":path", "proxy/svc/public/a"}}, target{then: notHTTP}},
	{[][2]string{{":path", ""}}, target{then: notHTTP}},
	{[][2]string{{":path", "*"}}, target{then: notVault}},
	{[][2]string{{":path", "http://evil.example/proxy/svc/public/a"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":path", "/proxy/svc/admin/x"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":authority", "evil.example"}}, target{then: "HOST_DENIED"}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":authority", "127.0.0.1@evil.example"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":authority", ""}, {"host", "evil.example"}}, target{then: "HOST_DENIED"}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":scheme", "ftp"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":method", "G ET"}}, target{then: "NO_ENDPOINT"}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":method", "GET /v1/admin/x HTTP/1.1"}}, target{then: "NO_ENDPOINT"}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {"connection", "authorization"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {"transfer-encoding", "chunked"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {"Authorization", "x"}}, target{then: notHTTP}},
	{[][2]string{{":path", "/proxy/svc/public/a"}, {":method", "CONNECT"}, {":protocol", "websocket"}}, target{then: notHTTP}},
}

// rawH2 sends one request of the fields over HTTP/2 without TLS and reads the
// answer. The status is 0 if the server ends the stream or the connection.
func (s *server) rawH2(t *testing.T, fields [][2]string, token string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // a TCP connection has deadlines

	given := map[string]bool{}
	for _, f := range fields {
		given[f[0]] = true
	}
	all := fields
	for _, f := range [][2]string{{"authorization", "Bearer " + token}, {":authority", "127.0.0.1"}, {":scheme", "http"}, {":method", "GET"}} {
		if given[f[0]] {
			continue
		}
		if f[0][0] == ':' { // before the others
			all = append([][2]string{f}, all...)
		} else {
			all = append(all[:len(all):len(all)], f)
		}
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range all {
		if f[0] == ":authority" && f[1] == "" {
			continue
		}
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(conn, conn)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}

	status, header, body := 0, http.Header{}, ""
	for {
		f, err := fr.ReadFrame()
		if err != nil { // the server has closed the connection
			return 0, header, ""
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, hf := range f.RegularFields() {
				header.Add(hf.Name, hf.Value)
			}
			if status, err = strconv.Atoi(f.PseudoValue("status")); err != nil {
				t.Fatal(err)
			}
			if f.StreamEnded() {
				return status, header, body
			}
		case *http2.DataFrame:
			body += string(f.Data())
			if f.StreamEnded() {
				return status, header, body
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0, header, ""
		}
	}
}
