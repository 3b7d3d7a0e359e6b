package handlers

import (
	"encoding/base64"
	"net/http"
	"slices"

	"golang.org/x/net/http/httpguts"

	"github.com/caddyvault/caddyvault/refusal"
)

// asksForWebSocket reports whether a request asks for a WebSocket: with an
// upgrade over HTTP/1.1 (RFC 6455), with CONNECT and a protocol over HTTP/2
// (RFC 8441) and HTTP/3 (RFC 9220). Any other upgrade that is offered is not
// taken up, which is a server's right.
func asksForWebSocket(r *http.Request) bool {
	switch r.ProtoMajor {
	case 1:
		return httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") &&
			httpguts.HeaderValuesContainsToken(r.Header["Upgrade"], "websocket")
	case 2:
		return r.Method == http.MethodConnect && slices.Equal(r.Header[":protocol"], []string{"websocket"})
	case 3:
		return r.Method == http.MethodConnect && r.Proto == "websocket"
	}
	return false
}

// checkWebSocket refuses a handshake that no server would take.
func checkWebSocket(r *http.Request) *refusal.Refusal {
	if !slices.Equal(r.Header["Sec-Websocket-Version"], []string{"13"}) {
		return refusal.New("UPGRADE_INVALID", "a WebSocket is asked for without Sec-WebSocket-Version: 13")
	}
	if r.ProtoMajor > 1 {
		return nil
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return refusal.New("UPGRADE_INVALID", "a WebSocket is asked for without one Sec-WebSocket-Key")
	}
	if key, err := base64.StdEncoding.Strict().DecodeString(keys[0]); err != nil || len(key) != 16 {
		return refusal.New("UPGRADE_INVALID", "Sec-WebSocket-Key is not sixteen bytes in base64")
	}
	if r.Method != http.MethodGet || r.ContentLength != 0 {
		return refusal.New("UPGRADE_INVALID", "a WebSocket is asked for with GET and without a body")
	}
	return nil
}
