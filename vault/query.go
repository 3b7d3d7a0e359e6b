package vault

import (
	"context"
	"errors"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
)

// Query answers from the audit log (wire.md, vault.audit.query).
func (v *Vault) Query(ctx context.Context, caller Caller, q audit.Query) (audit.Result, *refusal.Refusal) {
	switch {
	case caller.Admin || caller.Trusted:
	case caller.Agent == "":
		return audit.Result{}, unauthenticated()
	default:
		// Its own records: those of what it did, and those that are about it.
		const own = "agentId"
		if asked, ok := q.Filters[own]; ok && asked != caller.Agent {
			return audit.Result{}, refusal.New("AGENT_MISMATCH", "an agent reads its own records, and no other agent's").
				WithHint("leave the filter agentId out; an administrator reads everything, with the admin token as Authorization: Bearer")
		}
		if q.Filters == nil {
			q.Filters = make(map[string]string, 1)
		}
		q.Filters[own] = caller.Agent
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
