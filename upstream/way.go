package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// statusClientClosed is what Caddy's proxy answers, for logs, to a client that
// has gone.
const statusClientClosed = 499

// straight makes a call of a service without settings of its own. An answer
// that was read whole, with its length, is written as it is: there is nothing
// left for Caddy's proxy to do. Every other answer is passed on by the proxy,
// so that streams, trailers and what breaks off are dealt with in one place.
func (s *service) straight(w http.ResponseWriter, r *http.Request, c *call) error {
	in := incoming{length: c.out.ContentLength}
	if in.length > 0 {
		in.body = c.out.Body // else nil, so that Go's transport may try another connection
	}
	if httpguts.HeaderValuesContainsToken(c.out.Header["Te"], "trailers") {
		in.te = teTrailers
	}
	res, err := s.tr.send(&c.within, c, in)
	if errors.Is(err, context.Canceled) {
		w.WriteHeader(statusClientClosed)
		return nil
	}
	if err != nil {
		return err
	}
	body := res.Body.(*answerBody)
	if body.whole == nil || len(res.Trailer) > 0 || !c.handedOver {
		c.answer = res
		return s.proxied(w, r, c)
	}

	header := w.Header()
	delete(header, "Server")
	header["Via"] = append(header["Via"], strconv.Itoa(res.ProtoMajor)+"."+strconv.Itoa(res.ProtoMinor)+" Caddy")
	w.WriteHeader(res.StatusCode)
	_ = body.end(nil) // it was read to its end
	_, err = w.Write(body.whole)
	_ = res.Body.Close()
	if err != nil {
		panic(http.ErrAbortHandler) // as Caddy's proxy does: the client did not get all of it
	}
	return nil
}

var teTrailers = []string{"trailers"}

// proxied makes a call through Caddy's proxy, or passes on the answer that it
// has already.
func (s *service) proxied(w http.ResponseWriter, r *http.Request, c *call) error {
	out := c.out
	plain := s.plain && !out.Upgrade
	if plain {
		c.within.borrow()
	}
	req := r.WithContext(&c.within)
	// What the proxy sees, and may log, is the request as it goes out, less
	// the secret. RoundTrip takes the client's headers from out.
	req.Method = out.Method
	if out.Upgrade {
		req.Method = r.Method // CONNECT over HTTP/2 and HTTP/3, which the proxy knows what to do with
	}
	req.URL = &url.URL{Path: pathOf(out.EscapedPath), RawPath: out.EscapedPath, RawQuery: out.RawQuery}
	// The client's own may hold its token.
	req.RequestURI = out.EscapedPath
	if out.RawQuery != "" {
		req.RequestURI += "?" + out.RawQuery
	}
	req.Host = s.tr.origin.Host
	req.Header = make(http.Header, 8)
	if plain {
		// None of these goes out, so none need be made up.
		req.Header["X-Forwarded-For"], req.Header["X-Forwarded-Host"], req.Header["X-Forwarded-Proto"] = nil, nil, nil
	}
	if te := out.Header["Te"]; te != nil {
		req.Header["Te"] = te
	}
	if out.Upgrade && r.ProtoMajor == 1 {
		req.Header["Connection"], req.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if p := r.Header[":protocol"]; p != nil && out.Upgrade {
		req.Header[":protocol"] = p
	}
	req.Body, req.ContentLength = out.Body, out.ContentLength
	req.TransferEncoding = nil

	err := s.handler.ServeHTTP(w, req, nothingNext)
	c.within.giveBack()
	return err
}

var nothingNext = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

func pathOf(escaped string) string {
	p, err := url.PathUnescape(escaped)
	if err != nil {
		return escaped
	}
	return p
}
