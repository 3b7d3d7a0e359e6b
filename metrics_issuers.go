package caddyvault

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// issuerMetrics are the figures of the issuers of one configuration. What they
// are labelled with is the operator's.
type issuerMetrics struct{ sources []usedSource }

var (
	issuerUp   = prometheus.NewDesc("caddyvault_issuer_up", "1 if the last attempt to get the keys of an issuer of JWTs went well, 0 if not.", []string{"issuer"}, nil)
	issuerTime = prometheus.NewDesc("caddyvault_issuer_keys_timestamp_seconds", "When the keys of an issuer of JWTs were last got.", []string{"issuer"}, nil)
)

// Describe implements prometheus.Collector.
func (m *issuerMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- issuerUp
	out <- issuerTime
}

// Collect implements prometheus.Collector.
func (m *issuerMetrics) Collect(out chan<- prometheus.Metric) {
	for _, s := range m.sources {
		at, good := s.State()
		up := 0.0
		if good {
			up = 1
		}
		out <- prometheus.MustNewConstMetric(issuerUp, prometheus.GaugeValue, up, s.Name())
		if !at.IsZero() {
			out <- prometheus.MustNewConstMetric(issuerTime, prometheus.GaugeValue, float64(at.UnixMilli())/1000, s.Name())
		}
	}
}

// registerIssuers gives the figures of the issuers to a registry.
func registerIssuers(registry *prometheus.Registry, sources []usedSource) error {
	if registry == nil || len(sources) == 0 {
		return nil
	}
	err := registry.Register(&issuerMetrics{sources})
	if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return nil
	}
	return err
}
