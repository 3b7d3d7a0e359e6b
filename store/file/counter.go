package file

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
)

// reserve is how many revisions are reserved at once. A start skips what is
// left of the last reservation.
const reserve = 1 << 16

// maxRev is the highest revision believed of a file; beyond it is damage.
const maxRev store.Rev = 1 << 53

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// counter hands out revisions. The file "revision" holds one at or above all
// that were ever handed out, so that none is used twice, whatever the other
// files have forgotten since.
type counter struct {
	dir  *fsx.Dir
	last store.Rev // handed out
	mark store.Rev // in the file
}

// openCounter starts above what the file says and above known, the highest
// revision found elsewhere.
func openCounter(dir *fsx.Dir, known store.Rev) (counter, error) {
	c := counter{dir: dir, last: known}
	b, err := dir.ReadPrivate(revisionName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if known > 0 {
			c.last += reserve // perhaps removed by hand: keep clear of what it held
		}
	case err != nil:
		return c, err
	default:
		mark, ok := parseMark(string(b))
		if !ok {
			return c, fmt.Errorf("%s: %w; restore it, or remove it if %s and %s are the latest ones",
				filepath.Join(dir.Path(), revisionName), ErrDamaged, sealedName, logName)
		}
		c.last = max(c.last, mark)
	}
	return c, c.extend()
}

func parseMark(s string) (store.Rev, bool) {
	num, sum, ok := strings.Cut(strings.TrimSuffix(s, "\n"), " ")
	n, err := strconv.ParseUint(num, 10, 64)
	return store.Rev(n), ok && err == nil && s == formatMark(store.Rev(n)) && sum != "" && store.Rev(n) <= maxRev
}

func formatMark(rev store.Rev) string {
	num := strconv.FormatUint(uint64(rev), 10)
	return fmt.Sprintf("%s %08x\n", num, crc32.Checksum([]byte(num), castagnoli))
}

func (c *counter) extend() error {
	mark := c.last + reserve
	if err := c.dir.WriteAtomic(revisionName, []byte(formatMark(mark)), 0o600); err != nil {
		return err
	}
	c.mark = mark
	return nil
}

// next hands out the next revision. One handed out for a write that then
// fails is not used again.
func (c *counter) next() (store.Rev, error) {
	if c.last == c.mark {
		if err := c.extend(); err != nil {
			return 0, err
		}
	}
	c.last++
	return c.last, nil
}
