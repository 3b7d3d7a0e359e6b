package caddyvault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/upstream"
)

// How checkpoints are sent: at most one in postEvery, the newest; after a
// failure with pauses that grow to postPause.
const (
	postEvery   = 10 * time.Second
	postTimeout = 10 * time.Second
	postPause   = 5 * time.Minute
)

// poster sends the newest signed checkpoint of the audit log to somebody who
// keeps it. It holds one checkpoint, whatever the other side does.
type poster struct {
	url    string
	client *http.Client
	logger *zap.Logger
	newest atomic.Pointer[audit.Checkpoint]
	wake   chan struct{} // holds one

	sent, failed atomic.Uint64

	cancel context.CancelFunc
	done   chan struct{}
}

// checkpointURL checks the URL that checkpoints go to.
func checkpointURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, errors.New("is not a URL such as https://witness.example.com/caddyvault")
	case u.User != nil || u.Fragment != "":
		return nil, errors.New("has a user or a fragment")
	case u.Scheme == "http" && loopbackName(u.Hostname()):
	case u.Scheme != "https":
		return nil, errors.New("does not begin with https:// (http:// is for this machine alone)")
	}
	return u, nil
}

func loopbackName(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func newPoster(u *url.URL, control upstream.Control, logger *zap.Logger) *poster {
	dialer := &net.Dialer{Timeout: postTimeout, Control: control}
	return &poster{
		url: u.String(), logger: logger,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		client: &http.Client{
			Timeout: postTimeout,
			Transport: &http.Transport{ // no proxy of the environment
				DialContext: dialer.DialContext, TLSHandshakeTimeout: postTimeout,
				ResponseHeaderTimeout: postTimeout, MaxResponseHeaderBytes: 64 << 10,
				ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// offer takes a newer checkpoint, and does not wait.
func (p *poster) offer(c audit.Checkpoint) {
	p.newest.Store(&c)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *poster) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go p.run(ctx)
}

// stop ends the sending; what is not sent by then is not.
func (p *poster) stop() {
	if p.cancel != nil {
		p.cancel()
		<-p.done
		p.client.CloseIdleConnections()
	}
}

func (p *poster) run(ctx context.Context) {
	defer close(p.done)
	pause := time.Duration(0)
	wait := func(d time.Duration) bool {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		if pause == 0 {
			select {
			case <-p.wake:
			case <-ctx.Done():
				return
			}
		}
		select { // what comes after this is newer than c
		case <-p.wake:
		default:
		}
		c := p.newest.Load()
		err := p.send(ctx, c)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = min(max(2*pause, time.Second), postPause)
			p.failed.Add(1)
			metrics.notPosted.Inc()
			p.logger.Error("audit checkpoint could not be sent", zap.Error(err), zap.Uint64("size", c.Size), zap.Uint64("failures", p.failed.Load()), zap.Duration("again_in", pause))
			if !wait(pause) {
				return
			}
		default:
			pause = 0
			p.sent.Add(1)
			metrics.posted.Inc()
			if !wait(postEvery) {
				return
			}
		}
	}
}

// send posts one checkpoint.
func (p *poster) send(ctx context.Context, c *audit.Checkpoint) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader([]byte(c.Note)))
	if err != nil {
		return errors.New("the URL is not one")
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("User-Agent", "caddyvault")
	res, err := p.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // its text has the URL, which may be a capability
		}
		return err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("answered %d", res.StatusCode)
	}
	return nil
}
