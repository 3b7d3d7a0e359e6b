package vault

import (
	"bytes"
	"sync"

	"github.com/caddyvault/caddyvault/policy"
)

// compilations keep what the store compiled to see whether a service's file
// is valid, until the service is put into force: compiling is most of what
// loading many services costs, and need not be done twice.
type compilations struct {
	mu sync.Mutex
	m  map[string]compilation
}

type compilation struct {
	data     []byte
	compiled *policy.Compiled
}

// validate says what is wrong with a service's file. The store calls it for
// several services at once.
func (c *compilations) validate(name string, data []byte) error {
	compiled, err := policy.ParseService(name, data)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]compilation)
	}
	c.m[name] = compilation{bytes.Clone(data), compiled}
	return nil
}

// compile returns the service that data is, and forgets it.
func (c *compilations) compile(name string, data []byte) (*policy.Compiled, error) {
	c.mu.Lock()
	kept, ok := c.m[name]
	delete(c.m, name)
	c.mu.Unlock()
	if ok && bytes.Equal(kept.data, data) {
		return kept.compiled, nil
	}
	return policy.ParseService(name, data)
}

// forget drops what is kept of a service that is gone.
func (c *compilations) forget(name string) {
	c.mu.Lock()
	delete(c.m, name)
	c.mu.Unlock()
}
