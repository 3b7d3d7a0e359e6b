package audit

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestProve proves every record, of a whole log and of one whose beginning
// was dropped, and takes nothing for a proof that was changed.
func TestProve(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, dir string) map[string]string{
		"whole":   func(t *testing.T, dir string) map[string]string { return signed(t, dir, 3000, 41) },
		"dropped": retained,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files := make(t, dir)
			key := files[publicName]
			r := verifyOK(t, dir)
			if _, err := Prove(dir, r.Dropped, VerifyOptions{}); err == nil {
				t.Fatal("proved what is not there")
			}
			if _, err := Prove(dir, r.Own.Size+1, VerifyOptions{}); err == nil {
				t.Fatal("proved what no checkpoint is over")
			}
			var before Proof
			for seq := r.Dropped + 1; seq <= r.Own.Size; seq++ {
				p, err := Prove(dir, seq, VerifyOptions{Key: key})
				if err != nil {
					t.Fatalf("record %d: %v", seq, err)
				}
				b, err := json.Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				var again Proof
				if err := json.Unmarshal(b, &again); err != nil || again.Check(key) != nil || again.Seq != seq {
					t.Fatalf("record %d: %v, %s", seq, err, b)
				}
				for what, change := range map[string]func(p *Proof){
					"record":     func(p *Proof) { p.Record = strings.Replace(p.Record, `{"ts":9`, `{"ts":8`, 1) },
					"number":     func(p *Proof) { p.Seq++ },
					"hash":       func(p *Proof) { p.Hashes[0][3] ^= 1 },
					"one less":   func(p *Proof) { p.Hashes = p.Hashes[1:] },
					"checkpoint": func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n", "\n1", 1) },
					"another":    func(p *Proof) { p.Record = before.Record },
				} {
					bad := Proof{}
					_ = json.Unmarshal(b, &bad)
					change(&bad)
					if bad.Check(key) == nil {
						t.Fatalf("record %d with another %s", seq, what)
					}
				}
				before = p
			}
		})
	}
}
