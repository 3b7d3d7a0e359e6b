package main

import (
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

// profileDir is where profiles go; empty for none.
var profileDir string

// profile takes the profiles of a process for the length of a round. The
// returned function waits for them. What an earlier round wrote is replaced.
func (s *stage) profile(p *process, length time.Duration) (wait func()) {
	if profileDir == "" {
		return func() {}
	}
	running := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '_'
		}
		return r
	}, s.running)
	side := "vault"
	if p == s.bare {
		side = "bare"
	}
	seconds := max(1, int(length.Seconds()))
	var wg sync.WaitGroup
	for name, path := range map[string]string{"cpu": "profile", "allocs": "allocs"} {
		wg.Go(func() {
			url := fmt.Sprintf("%s/debug/pprof/%s?seconds=%d", s.adminURL[p], path, seconds)
			if err := fetch(url, filepath.Join(profileDir, running+"."+side+"."+name)); err != nil {
				log.Print("profile: ", err)
			}
		})
	}
	return wg.Wait
}

func fetch(url, file string) error {
	res, err := http.Get(url)
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
