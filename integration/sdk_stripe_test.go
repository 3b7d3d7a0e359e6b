package integration

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestStripe is about a library that takes a host but no path.
func TestStripe(t *testing.T) {
	sdkRun(t, sdk{
		name: "stripe", auth: "Authorization", scheme: "Bearer",
		scopes: []string{"stripe:customers:read", "stripe:customers:write", "stripe:payment_intents:read", "stripe:payment_intents:write", "stripe:balance:read"},
		sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
http://:$PORT2 {
	bind 127.0.0.1
	log
	vault proxy stripe
}`,
		standIn:  stripe,
		env:      func(s *server) []string { return []string{"STRIPE_URL=http://127.0.0.1:" + s.port2} },
		keyNames: []string{"STRIPE_API_KEY"},
		want: `{
			"created": ["cus_1", "Jenny Rosén"], "requestId": "req_1",
			"listed": ["cus_1", "cus_2", "cus_3"],
			"expanded": "cus_1", "deleted": true,
			"declined": {"class": "StripeCardError", "status": 402, "message": "Your card was declined.", "vaultError": null},
			"vaultRefuses": {"class": "StripeOAuthError", "status": 403, "message": "INSUFFICIENT_SCOPE:stripe:refunds:write: the action refunds.create needs the scope stripe:refunds:write, which the token does not have; ask vault.issueToken for a token for stripe with the scope stripe:refunds:write", "vaultError": "INSUFFICIENT_SCOPE:stripe:refunds:write"},
			"noEndpoint": {"class": "StripeOAuthError", "status": 404, "message": "NO_ENDPOINT: the service stripe has no endpoint for this method and path; near it are: GET /v1/balance (balance.get), GET /v1/balance_transactions (balance_transactions.list), GET /v1/charges/{charge} (charges.get), GET /v1/charges (charges.list), GET /v1/charges/search (charges.search)", "vaultError": "NO_ENDPOINT"},
			"notAToken": {"class": "StripeOAuthError", "status": 401, "message": "TOKEN_INVALID: the token is not valid: it is not a signed token of three parts", "vaultError": "TOKEN_INVALID"}
		}`,
	})
}

// stripe answers as api.stripe.com does.
func stripe(st *standIn) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Request-Id", "req_1")
		w.Header().Set("Stripe-Version", r.Header.Get("Stripe-Version"))
		if r.Header.Get("Stripe-Version") == "" {
			st.t.Errorf("%s: no Stripe-Version", r.URL)
		}
		body, _ := io.ReadAll(r.Body) // from memory
		form, err := url.ParseQuery(string(body))
		if err != nil {
			st.t.Errorf("%s: %v", body, err)
		}
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/customers":
			if r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || form.Get("name") != "Jenny Rosén" ||
				form.Get("metadata[a b]") != "1&2" || form.Get("address[city]") != "Zürich" {
				st.t.Errorf("the form is %v", form)
			}
			answerJSON(w, 200, `{"id":"cus_1","object":"customer","name":"Jenny Rosén","livemode":false}`)
		case "GET /v1/customers":
			page := `{"object":"list","url":"/v1/customers","has_more":true,"data":[{"id":"cus_1","object":"customer"},{"id":"cus_2","object":"customer"}]}`
			if r.URL.Query().Get("starting_after") == "cus_2" {
				page = `{"object":"list","url":"/v1/customers","has_more":false,"data":[{"id":"cus_3","object":"customer"}]}`
			}
			answerJSON(w, 200, page)
		case "GET /v1/payment_intents/pi_1":
			if q := r.URL.Query(); q.Get("expand[0]") != "customer" || q.Get("expand[1]") != "latest_charge" {
				st.t.Errorf("the query is %s", r.URL.RawQuery)
			}
			answerJSON(w, 200, `{"id":"pi_1","object":"payment_intent","customer":{"id":"cus_1","object":"customer"}}`)
		case "POST /v1/payment_intents":
			if r.Header.Get("Idempotency-Key") != "order-1" || form.Get("payment_method_types[0]") != "card" {
				st.t.Errorf("Idempotency-Key %q, form %v", r.Header["Idempotency-Key"], form)
			}
			answerJSON(w, 402, `{"error":{"code":"card_declined","decline_code":"generic_decline","message":"Your card was declined.","type":"card_error"}}`)
		case "DELETE /v1/customers/cus_1":
			answerJSON(w, 200, `{"id":"cus_1","object":"customer","deleted":true}`)
		default:
			if strings.HasPrefix(r.URL.Path, "/v1/") {
				st.t.Errorf("the stand-in has no %s %s", r.Method, r.URL.Path)
			}
			answerJSON(w, 404, `{"error":{"message":"Unrecognized request URL","type":"invalid_request_error"}}`)
		}
	}
}
