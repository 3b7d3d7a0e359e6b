//go:build !unix

package upstream

const oNonblock = 0
