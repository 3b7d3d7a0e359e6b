package upstream

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what RFC 6455 says
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/upstream/scrub"
)

// The headers of the handshake, in the spelling of RFC 6455: some servers want
// it so. Extensions are never offered, because frames are looked into.
//
//nolint:canonicalheader // RFC 6455
const (
	wsKey      = "Sec-WebSocket-Key"
	wsVersion  = "Sec-WebSocket-Version"
	wsProtocol = "Sec-WebSocket-Protocol"
)

// handshake is one WebSocket's.
type handshake struct {
	key       string
	protocols []string // that the upstream may choose from
}

// newHandshake puts a handshake of the vault's own into a request's header.
// Of the subprotocols that the client offers, those pass that the endpoint
// lists: some APIs take a key there.
func newHandshake(header http.Header, c *call) handshake {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	h := handshake{key: base64.StdEncoding.EncodeToString(nonce)}
	for _, list := range c.out.Header["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(list, ",") {
			if p = strings.TrimSpace(p); slices.Contains(c.out.Endpoint.Subprotocols, p) && !slices.Contains(h.protocols, p) {
				h.protocols = append(h.protocols, p)
			}
		}
	}
	header["Connection"] = []string{"Upgrade"}
	header["Upgrade"] = []string{"websocket"}
	header[wsKey] = []string{h.key}
	header[wsVersion] = []string{"13"}
	if len(h.protocols) > 0 {
		header[wsProtocol] = []string{strings.Join(h.protocols, ", ")}
	}
	return h
}

// accept is what a server makes of a key.
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // what RFC 6455 says
	return base64.StdEncoding.EncodeToString(sum[:])
}

// check returns what is wrong with an upstream's answer that switches to
// WebSocket, and the subprotocol that it chose. An upstream that has not
// understood would take what a client sends next for requests.
func (h handshake) check(answer http.Header) (protocol, wrong string) {
	protocol = answer.Get("Sec-Websocket-Protocol")
	switch {
	case !httpguts.HeaderValuesContainsToken(answer["Connection"], "upgrade"),
		len(answer["Upgrade"]) != 1 || !strings.EqualFold(answer["Upgrade"][0], "websocket"):
		return "", "to something that is no WebSocket"
	case len(answer["Sec-Websocket-Accept"]) != 1 || answer["Sec-Websocket-Accept"][0] != accept(h.key):
		return "", "without having seen the handshake"
	case len(answer["Sec-Websocket-Extensions"]) > 0:
		return "", "with extensions that nobody asked for"
	case len(answer["Sec-Websocket-Protocol"]) > 1, protocol != "" && !slices.Contains(h.protocols, protocol):
		return "", "with a subprotocol that nobody asked for"
	}
	return protocol, ""
}

// upgraded turns the answer that opens a WebSocket into what the proxy
// expects, with a body that is the vault's end of it.
func (t *transport) upgraded(ctx context.Context, res *http.Response, c *call, h handshake, secrets *scrub.Scrubber) *refusal.Refusal {
	protocol, wrong := h.check(res.Header)
	if wrong != "" {
		return refusal.New("UPSTREAM_PROTOCOL", "the upstream switched protocols "+wrong)
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return refusal.New(refusal.Internal, "the connection to the upstream cannot be written to")
	}
	filterResponse(res.Header, t.passSetCookie)
	for name := range res.Header {
		if strings.HasPrefix(name, "Sec-Websocket-") || slices.Contains(t.drop, name) {
			delete(res.Header, name)
		}
	}
	if secrets != nil && secrets.Active() {
		hits := scrubHeader(res.Header, secrets)
		if c.result.Redactions += hits; hits > 0 && t.block {
			return blocked()
		}
	}
	res.Header["Connection"] = []string{"Upgrade"}
	res.Header["Upgrade"] = []string{"websocket"}
	if key := c.out.Header.Get("Sec-Websocket-Key"); key != "" { // over HTTP/1.1
		res.Header["Sec-Websocket-Accept"] = []string{accept(key)}
	}
	if protocol != "" {
		res.Header["Sec-Websocket-Protocol"] = []string{protocol}
	}
	c.watch.stream.Store(true)
	c.watch.long.Store(true)
	c.watch.phase.Store(answering)
	res.Body = newTunnel(ctx, conn, c, secrets, t.block)
	return nil
}

// closeCode is how a WebSocket says what ends it.
func closeCode(code string) uint16 {
	switch base := refusal.Base(code); {
	case base == "UPGRADE_INVALID":
		return closeProtocol
	case base == "UPSTREAM_TIMEOUT", base == "CLIENT_TIMEOUT":
		return closeGoingAway
	case refusal.Status(code) < 500:
		return closePolicy
	}
	return closeInternal
}

// cleanControl takes secrets out of a control frame's payload, which stays
// short enough for one and, after a Close frame's code, UTF-8.
func cleanControl(opcode byte, payload []byte, secrets *scrub.Scrubber) ([]byte, int) {
	keep := 0
	if opcode == opClose {
		keep = min(2, len(payload))
	}
	clean, hits := secrets.Bytes(payload[keep:])
	if hits == 0 {
		return payload, 0
	}
	if len(clean) > maxControl-keep {
		clean = clean[:maxControl-keep]
		for len(clean) > 0 && !utf8.Valid(clean) && opcode == opClose {
			clean = clean[:len(clean)-1]
		}
	}
	return append(payload[:keep:keep], clean...), hits
}
