package vault

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

// maxWhole is the largest body of a request that the vault must have whole,
// because it adds the secret to it or signs it.
const maxWhole = 8 << 20

// readWhole reads the body of a request whose service's credential depends on
// it, and finds where in it the credential goes. The bodies of all others
// stream. A client has the service's timeouts.idle for all of it.
func (h *BodyHold) readWhole(w http.ResponseWriter, out *Outbound) *refusal.Refusal {
	var body []byte
	if out.Body != nil {
		// Where a connection has no deadlines, the server's own limits hold.
		conn := http.NewResponseController(w)
		_ = conn.SetReadDeadline(time.Now().Add(time.Duration(out.Service.Timeouts.Idle)))
		var err error
		if body, err = h.Read(out.Body, out.ContentLength, maxWhole, nil); err != nil {
			return readRefusal(err, maxWhole, ", and the service's credential depends on all of it")
		}
		_ = conn.SetReadDeadline(time.Time{})
	}
	contentType, encoding := out.Header["Content-Type"], out.Header["Content-Encoding"]
	if out.Envelope {
		contentType, encoding = nil, nil
	}
	if out.ContentType != "" {
		contentType = []string{out.ContentType}
	}
	plan, refused := out.Service.PlanBody(contentType, encoding, body)
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
