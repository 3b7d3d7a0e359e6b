package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// profile takes the profiles of a process for the length of a round. The
// returned function waits for them. What an earlier round wrote is replaced.
func (s *stage) profile(p *process, length time.Duration) (wait func()) {
	if s.profiles == "" {
		return func() {}
	}
	running := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '_'
		}
		return r
	}, s.running)
	side := "vault"
	if p == s.bare.process {
		side = "bare"
	}
	admin := s.admins[p]
	seconds := max(1, int(length.Seconds()))
	var wg sync.WaitGroup
	for name, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
		wg.Go(func() {
			url := fmt.Sprintf("%s/debug/pprof/%s?seconds=%d", admin, path, seconds)
			if err := fetch(s.ctx, url, filepath.Join(s.profiles, running+"."+side+"."+name)); err != nil {
				log.Print("profile: ", err)
			}
		})
	}
	return wg.Wait
}

func fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, res.Body)
	return err
}
