package caddyvault

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyvault/caddyvault/audit"
)

// auditMetrics are the figures of the audit log of one configuration's data
// directory. The log counts, over reloads; a scrape only reads.
type auditMetrics struct {
	stats func() (audit.Stats, bool)
}

func auditDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, nil, nil)
}

var (
	auditRecords        = auditDesc("caddyvault_audit_records_total", "Records written to the audit log.")
	auditSuppressed     = auditDesc("caddyvault_audit_suppressed_total", "Refusals before authentication that were counted in the audit log, and not written one by one.")
	auditQueue          = auditDesc("caddyvault_audit_queue_bytes", "What waits to be written to the audit log.")
	auditSegments       = auditDesc("caddyvault_audit_segments", "Files of the audit log.")
	auditBytes          = auditDesc("caddyvault_audit_bytes", "Size of the audit log.")
	auditUp             = auditDesc("caddyvault_audit_up", "1 while records can be written, 0 while calls are refused because they cannot.")
	auditCommits        = auditDesc("caddyvault_audit_commit_seconds", "How long a batch of records took to be written, and on disk where a call waits for that.")
	auditBatches        = auditDesc("caddyvault_audit_batch_records", "Records in a batch.")
	auditCheckpointSize = auditDesc("caddyvault_audit_checkpoint_records", "Records that the newest checkpoint covers.")
	auditCheckpointTime = auditDesc("caddyvault_audit_checkpoint_timestamp_seconds", "When the newest checkpoint was made.")
)

// Describe implements prometheus.Collector.
func (m *auditMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		auditRecords, auditSuppressed, auditQueue, auditSegments, auditBytes, auditUp, auditCommits, auditBatches, auditCheckpointSize, auditCheckpointTime,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *auditMetrics) Collect(out chan<- prometheus.Metric) {
	s, ok := m.stats()
	if !ok {
		return
	}
	value := func(d *prometheus.Desc, t prometheus.ValueType, v float64) {
		out <- prometheus.MustNewConstMetric(d, t, v)
	}
	up := 0.0
	if s.Available {
		up = 1
	}
	value(auditRecords, prometheus.CounterValue, float64(s.Records))
	value(auditSuppressed, prometheus.CounterValue, float64(s.Suppressed))
	value(auditQueue, prometheus.GaugeValue, float64(s.QueueBytes))
	value(auditSegments, prometheus.GaugeValue, float64(s.Segments))
	value(auditBytes, prometheus.GaugeValue, float64(s.Bytes))
	value(auditUp, prometheus.GaugeValue, up)
	out <- prometheus.MustNewConstHistogram(auditCommits, s.Commits.Count, s.Commits.Sum, s.Commits.Buckets)
	out <- prometheus.MustNewConstHistogram(auditBatches, s.Batches.Count, s.Batches.Sum, s.Batches.Buckets)
	value(auditCheckpointSize, prometheus.GaugeValue, float64(s.CheckpointSize))
	if !s.CheckpointTime.IsZero() {
		value(auditCheckpointTime, prometheus.GaugeValue, float64(s.CheckpointTime.UnixMilli())/1000)
	}
}

// registerAudit gives the figures of e's log to a registry.
func registerAudit(registry *prometheus.Registry, e *engine) error {
	if registry == nil {
		return nil
	}
	err := registry.Register(&auditMetrics{stats: func() (audit.Stats, bool) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.state == nil {
			return audit.Stats{}, false
		}
		return e.state.Audit().Stats(), true
	}})
	if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return nil
	}
	return err
}

var _ prometheus.Collector = (*auditMetrics)(nil)
