package caddyvault

import (
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyvault/caddyvault/vault"
)

// logRedacted writes the access log entry of a request that carries its token
// where Caddy's access log would show it. Caddy's entry is made from a copy of
// the request that was taken before any handler ran, so it is skipped, and this
// one has the same form.
func (h *Handler) logRedacted(r *http.Request, v *vault.Vault, rec caddyhttp.ResponseRecorder, start time.Time) {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Logs == nil {
		return
	}
	clear := r.Clone(r.Context())
	h.server.RedactToken(clear, v)
	level := zapcore.InfoLevel
	if rec.Status() >= http.StatusInternalServerError {
		level = zapcore.ErrorLevel
	}
	agent := ""
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		agent, _ = repl.GetString("http.auth.user.id")
	}
	for _, logger := range accessLoggers(server.Logs, r.Host) {
		if entry := logger.Check(level, "handled request"); entry != nil {
			entry.Write(
				zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: clear}),
				zap.String("user_id", agent),
				zap.Duration("duration", time.Since(start)),
				zap.Int("size", rec.Size()),
				zap.Int("status", rec.Status()),
				zap.Object("resp_headers", caddyhttp.LoggableHTTPHeader{Header: rec.Header()}),
			)
		}
	}
}

// accessLoggers returns the loggers that Caddy would use for a host.
func accessLoggers(logs *caddyhttp.ServerLogConfig, hostport string) []*zap.Logger {
	host := strings.ToLower(hostport)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	access := caddy.Log().Named("http.log.access")
	names := logs.LoggerNames[host]
	if len(names) == 0 {
		names = []string{logs.DefaultLoggerName}
	}
	out := make([]*zap.Logger, len(names))
	for i, name := range names {
		if out[i] = access; name != "" {
			out[i] = access.Named(name)
		}
	}
	return out
}
