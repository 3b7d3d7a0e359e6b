package handlers

import (
	"reflect"
	"testing"
)

var plainBodies = []string{
	`{"token":"a.b.c","service":"svc","action":"small","params":{"owner":"o","repo":"r","page":2}}`,
	` { "service" : "svc" , "action" : "a" , "token" : "" , "params" : null , "context" : { "agentId" : "a", "taskId":"" } } `,
	`{}`,
	`{"service":"svc","scope":["a","b"],"ttl":60,"agentId":"a","sessionId":"s","taskId":"t","skillId":"k","tool":"x","bind":"none"}`,
	`{"service":"svc","scope":[],"ttl":null}`,
}

var otherBodies = []string{
	`{"token":null}`, `{"token":1}`, `{"service":{}}`, `{"context":null}`, `{"context":{"agentId":null}}`, `{"context":{"agentId":1}}`,
	`{"context":{"other":"x"}}`, `{"context":"x"}`, `{"params":{"a":1,"a":2}}`, `{"service":"a","service":"a"}`, `{"other":1}`, `{"Token":"x"}`,
	`{"scope":null}`, `{"scope":[1]}`, `{"scope":["a",null]}`, `{"scope":"a"}`, `{"maxCalls":1}`, `{"service":"\u0061"}`, `{"service":"ä"}`,
	``, `null`, `[]`, `{"service":"a"}}`,
}

// TestPlain holds that plain bodies are read without a decoder, and that none
// is read otherwise than by one.
func TestPlain(t *testing.T) {
	for _, body := range plainBodies {
		if !new(callBody).plain([]byte(body)) && !new(issueBody).plain([]byte(body)) {
			t.Errorf("%s is not plain", body)
		}
		agreeOnPlain(t, []byte(body))
	}
	for _, body := range otherBodies {
		if new(callBody).plain([]byte(body)) && new(issueBody).plain([]byte(body)) {
			t.Errorf("%s is plain", body)
		}
		agreeOnPlain(t, []byte(body))
	}
}

func agreeOnPlain(t *testing.T, body []byte) {
	t.Helper()
	var call, wantCall callBody
	if call.plain(body) {
		if refused := decode(body, &wantCall, false); refused != nil || !reflect.DeepEqual(call, wantCall) {
			t.Fatalf("%q: read as %+v, decoded as %+v, %v", body, call, wantCall, refused)
		}
	}
	var issue, wantIssue issueBody
	if issue.plain(body) {
		if refused := decode(body, &wantIssue, false); refused != nil || !reflect.DeepEqual(issue, wantIssue) {
			t.Fatalf("%q: read as %+v, decoded as %+v, %v", body, issue, wantIssue, refused)
		}
	}
}

func FuzzPlain(f *testing.F) {
	for _, body := range append(plainBodies, otherBodies...) {
		f.Add([]byte(body))
	}
	f.Fuzz(agreeOnPlain)
}
