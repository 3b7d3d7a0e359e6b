package vault

import (
	"crypto/sha256"
	"sync"

	"github.com/caddyvault/caddyvault/policy"
)

// compilations keep what the store compiled to see whether a service's file
// is valid, until the service is put into force: compiling is most of what
// loading many services costs, and need not be done twice.
type compilations struct {
	mu sync.Mutex
	m  map[string]compilation

	// parse compiles a service's file.
	parse func(name string, data []byte) (*policy.Compiled, error)

	// inForce returns what is in force under a name, if anything is: a file
	// that is read again with the same content is not compiled again.
	inForce func(name string) compilation
}

// compilation is a service and the digest of the JSON it was made from.
type compilation struct {
	sum      [sha256.Size]byte
	compiled *policy.Compiled // nil for none
}

func (c compilation) of(sum [sha256.Size]byte) bool { return c.compiled != nil && c.sum == sum }

// validate says what is wrong with a service's file. The store calls it for
// several services at once.
func (c *compilations) validate(name string, data []byte) error {
	sum := sha256.Sum256(data)
	c.mu.Lock()
	kept := c.m[name]
	c.mu.Unlock()
	if kept.of(sum) || c.inForce(name).of(sum) {
		return nil
	}
	compiled, err := c.parse(name, data)
	if err == nil {
		c.keep(name, compilation{sum, compiled})
	}
	return err
}

// keep remembers what the data is that is about to be put into force.
func (c *compilations) keep(name string, compiled compilation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]compilation)
	}
	c.m[name] = compiled
}

// compile returns the service that data is, and forgets it.
func (c *compilations) compile(name string, data []byte) (compilation, error) {
	c.mu.Lock()
	kept := c.m[name]
	delete(c.m, name)
	c.mu.Unlock()
	sum := sha256.Sum256(data)
	if kept.of(sum) {
		return kept, nil
	}
	if now := c.inForce(name); now.of(sum) {
		return now, nil
	}
	compiled, err := c.parse(name, data)
	return compilation{sum, compiled}, err
}

// forget drops what is kept of a service that is gone.
func (c *compilations) forget(name string) {
	c.mu.Lock()
	delete(c.m, name)
	c.mu.Unlock()
}
