package vault

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

// maxWhole is the largest body of a request that the vault must have whole,
// because it adds the secret to it or signs it.
const maxWhole = 8 << 20

// readWhole reads the body of a request whose service's credential depends on
// it, and finds where in it the credential goes. The bodies of all others
// stream. A client has the service's timeouts.idle for all of it.
func readWhole(w http.ResponseWriter, out *Outbound) *refusal.Refusal {
	if !out.Service.ReadsBody() {
		return nil
	}
	tooLarge := refusal.New("BODY_TOO_LARGE", "the body is larger than %d bytes, and the service's credential depends on all of it", maxWhole)
	if out.ContentLength > maxWhole {
		return tooLarge
	}
	var buf bytes.Buffer
	if out.Body != nil {
		if out.ContentLength > 0 {
			buf.Grow(int(out.ContentLength) + bytes.MinRead)
		}
		// Where a connection has no deadlines, the server's own limits hold.
		conn := http.NewResponseController(w)
		_ = conn.SetReadDeadline(time.Now().Add(time.Duration(out.Service.Timeouts.Idle)))
		_, err := buf.ReadFrom(io.LimitReader(out.Body, maxWhole+1))
		_ = conn.SetReadDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return refusal.New("CLIENT_TIMEOUT:idle", "the client did not send its request in time").WithCause(err)
		}
		if err != nil {
			return refusal.New("BODY_INVALID", "the body could not be read to its end").WithCause(err)
		}
		if buf.Len() > maxWhole {
			return tooLarge
		}
	}
	contentType, encoding := out.Header["Content-Type"], out.Header["Content-Encoding"]
	if out.Envelope {
		contentType, encoding = nil, nil
	}
	if out.ContentType != "" {
		contentType = []string{out.ContentType}
	}
	plan, refused := out.Service.PlanBody(contentType, encoding, buf.Bytes())
	if refused != nil {
		return refused
	}
	if plan.ContentType != "" {
		out.ContentType = plan.ContentType
	}
	out.Whole = &plan
	out.Body, out.ContentLength = http.NoBody, 0
	if len(plan.Body) > 0 {
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(plan.Body)), int64(len(plan.Body))
	}
	return nil
}
