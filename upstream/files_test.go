package upstream

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadsThatHang: they are waited for once, and hold up no other directory.
func TestReadsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := make(chan struct{})
		var reads atomic.Int64
		f := &fileReader{read: func(path string) ([]byte, error) {
			if reads.Add(1); strings.HasPrefix(path, "/hangs") {
				<-back
			}
			return []byte(path), nil
		}}
		read := func(path string) (time.Duration, error) {
			start := time.Now()
			data, err := f.until(start.Add(fileWait), path)
			if err == nil && string(data) != path {
				t.Errorf("%s: got %q", path, data)
			}
			return time.Since(start), err
		}
		for i, tt := range []struct {
			path  string
			waits time.Duration
			hangs bool
		}{
			{"/fine/a", 0, false},
			{"/hangs/a", fileWait, true},
			{"/hangs/a", 0, true},
			{"/hangs/b", 0, true},
			{"/fine/a", 0, false},
			{"/hangs1/a", fileWait, true},
		} {
			took, err := read(tt.path)
			if took != tt.waits || errors.Is(err, errHangs) != tt.hangs {
				t.Errorf("%d: %s took %s: %v", i, tt.path, took, err)
			}
		}
		for i := 2; i < maxHanging; i++ {
			if _, err := read(fmt.Sprintf("/hangs%d/a", i)); !errors.Is(err, errHangs) {
				t.Error(err)
			}
		}
		before := reads.Load()
		if took, err := read("/fine/a"); took != 0 || !errors.Is(err, errHangs) || reads.Load() != before {
			t.Errorf("beyond what may hang: %s %v", took, err)
		}
		close(back)
		synctest.Wait()
		for _, path := range []string{"/hangs/a", "/hangs7/a", "/fine/a"} {
			if took, err := read(path); took != 0 || err != nil {
				t.Errorf("%s, back: %s %v", path, took, err)
			}
		}
		synctest.Wait()
		if len(f.hanging) != 0 {
			t.Errorf("%v", f.hanging)
		}
	})
}
