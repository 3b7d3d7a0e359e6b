// Package cli is `caddyvault vault …`: what a person does with a vault from a
// terminal.
//
// Two kinds of commands are here. Some are clients of a running vault and
// speak its HTTP API as any other client does: the agent's verbs (health,
// token, call, revoke, audit) and the administrator's (services, templates,
// secrets, revocations, unrevoke). The others work on files while no vault
// runs: init, import, doctor.
//
// Promises: a secret is read from standard input, never from an argument, and
// is not printed; a token is printed by `token` alone; answers go to standard
// output, and what went wrong to standard error as "CODE: detail" and "hint:
// …"; the exit status is 0 for success, 1 for a refusal or an error, 2 for
// wrong usage.
package cli
