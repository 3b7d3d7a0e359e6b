package vault

import (
	"context"
	"errors"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
)

// Query answers from the audit log (wire.md, vault.audit.query).
func (v *Vault) Query(ctx context.Context, caller Caller, q audit.Query) (audit.Result, *refusal.Refusal) {
	if caller.Agent == "" && !caller.Trusted {
		return audit.Result{}, unauthenticated()
	}
	res, err := v.audit.Query(ctx, q)
	if errors.Is(err, audit.ErrFilter) {
		return audit.Result{}, filtersInvalid()
	}
	if err != nil {
		return audit.Result{}, auditRefusal(err)
	}
	return res, nil
}

// CheckFilters refuses filters that name no field.
func CheckFilters(filters map[string]string) *refusal.Refusal {
	if err := audit.CheckFilters(filters); err != nil {
		return filtersInvalid()
	}
	return nil
}
