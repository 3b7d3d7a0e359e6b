package handlers

import (
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

func listSigningKeys(rq *request, body []byte) (any, *refusal.Refusal) {
	if refused := empty(body); refused != nil {
		return nil, refused
	}
	keys, refused := rq.vault.ListSigningKeys()
	if refused != nil {
		return nil, refused
	}
	rq.count(len(keys))
	return struct {
		Keys []vault.SigningKeyInfo `json:"keys"`
	}{keys}, nil
}

func rotateSigningKey(rq *request, body []byte) (any, *refusal.Refusal) {
	var in struct {
		Now bool `json:"now"`
	}
	if refused := decode(body, &in, true); refused != nil {
		return nil, refused
	}
	key, refused := rq.vault.RotateSigningKey(rq.Context(), in.Now, &rq.record)
	if refused != nil {
		return nil, refused
	}
	return struct {
		OK bool `json:"ok"`
		vault.SigningKeyInfo
	}{true, *key}, nil
}

func retireSigningKey(rq *request, body []byte) (any, *refusal.Refusal) {
	taken, refused := only(body, "kid")
	if refused != nil {
		return nil, refused
	}
	kid, refused := requiredField(taken, "kid")
	if refused != nil {
		return nil, refused
	}
	next, refused := rq.vault.RetireSigningKey(rq.Context(), kid, &rq.record)
	if refused != nil {
		return nil, refused
	}
	return struct {
		OK   bool   `json:"ok"`
		Kid  string `json:"kid"`
		Next string `json:"next,omitzero"`
	}{true, kid, next}, nil
}
