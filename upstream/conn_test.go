package upstream

import (
	"context"
	"io"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// TestCutClosesTheConnection: a call that is cut closes its client's
// connection by itself, once, and not one that others share or have by now.
func TestCutClosesTheConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct {
		name   string
		major  int
		long   bool
		over   bool // before it is cut
		closed bool
	}{
		{name: "a stream", major: 1, long: true, closed: true},
		{name: "a stream that is over", major: 1, long: true, over: true},
		{name: "an answer that is ready", major: 1},
		{name: "a stream over HTTP/2", major: 2, long: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			r := httptest.NewRequest("GET", "/", nil)
			r.ProtoMajor = tt.major
			r = r.WithContext(WithConn(WithConn(t.Context(), conn), nil))
			var revoke func()
			w := &watch{
				limits: policy.DefaultTimeouts, result: new(vault.Result), client: httptest.NewRecorder(), from: r,
				onCut: func(f func()) { revoke = f },
			}
			ctx, cut := context.WithCancelCause(r.Context())
			defer cut(nil)
			w.begin()
			defer w.end()
			if refused := w.answered(ctx, tt.long, tt.long); refused != nil {
				t.Fatal(refused)
			}
			if tt.over {
				w.end()
			}
			cut(refusal.New("TOKEN_REVOKED", ""))
			if revoke != nil {
				revoke() // waits until the other, if it is first, is done
				revoke()
			}
			if _, err := conn.Write([]byte("x")); (err != nil) != tt.closed {
				t.Errorf("writing to the client: %v", err)
			}
			conn.Close()
			if b, err := io.ReadAll(client); (len(b) == 0) != tt.closed || err != nil {
				t.Errorf("the client reads %q %v", b, err)
			}
		})
	}
}
