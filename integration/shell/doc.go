// Package shell holds the tests of agentvault and agentvault.sh, which drive
// them as their users do: run, linked to, piped together and sourced, against a
// stand-in of the vault that answers as its HTTP API says.
//
// They need bash, curl and jq, as the scripts themselves do, and fail without
// them: a test that was left out has shown nothing.
package shell
