package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Names in the directory that have to do with checkpoints.
const (
	checkpointName = "audit.checkpoint"
	keyName        = "audit.key"
	publicName     = "audit.pub"

	keyPrefix = "caddyvault/audit/" // of the name of a key, which is also the origin of its notes
)

// maxNote bounds what is read of a file that holds a note or a key.
const maxNote = 64 << 10

// Checkpoint is what a signed note says (the format of C2SP tlog-checkpoint:
// origin, size, root): the log begins with Size records, and Root is the
// Merkle tree's hash over them.
type Checkpoint struct {
	Size uint64
	Root tlog.Hash

	// Note is the signed note as it is stored and sent.
	Note string
}

// text is what is signed.
func (c *Checkpoint) text(origin string) string {
	return origin + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// errForged says that a note is none, or not signed by the key.
var errForged = errors.New("not a note signed by the log's key")

// openCheckpoint returns the checkpoint of a note that v has signed.
func openCheckpoint(signed string, v note.Verifier) (Checkpoint, error) {
	c, extra, err := openNote(signed, v)
	if err == nil && extra != "" {
		err = errForged
	}
	return c, err
}

// openNote is openCheckpoint for a note that says more than a checkpoint,
// which is extra.
func openNote(signed string, v note.Verifier) (c Checkpoint, extra string, err error) {
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return c, "", fmt.Errorf("%w: %w", errForged, err)
	}
	lines := strings.SplitN(n.Text, "\n", 4)
	if len(lines) != 4 || lines[0] != v.Name() {
		return c, "", errForged
	}
	size, err := strconv.ParseUint(lines[1], 10, 62)
	if err != nil {
		return c, "", errForged
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return c, "", errForged
	}
	c = Checkpoint{Size: size, Root: tlog.Hash(root), Note: signed}
	if !strings.HasPrefix(n.Text, c.text(v.Name())) { // a second way to write the same
		return c, "", errForged
	}
	return c, lines[3], nil
}

// ParseKey returns the verifier of a public key as audit.pub holds it.
func ParseKey(key string) (note.Verifier, error) {
	v, err := note.NewVerifier(strings.TrimSpace(key))
	if err != nil {
		return nil, errors.New("not the public key of an audit log, which looks like caddyvault/audit/…+…+…")
	}
	return v, nil
}

// newKey makes a key and the name that goes with it.
func newKey() (private string, err error) {
	private, _, err = note.GenerateKey(rand.Reader, keyPrefix+randomHex())
	return private, err
}

// publicOf returns the public key of a private one.
func publicOf(private string) (string, error) {
	s, err := note.NewSigner(private)
	if err != nil {
		return "", err
	}
	_, encoded, _ := strings.Cut(strings.TrimPrefix(private, "PRIVATE+KEY+"+s.Name()+"+"), "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", err
	}
	public := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(s.Name(), public)
}

// keys are a log's own.
type keys struct {
	signer   note.Signer
	verifier note.Verifier
}

// loadKeys reads the log's key. The first one is made by make.
func (w *writer) loadKeys() (*keys, error) {
	private, err := w.readSmall(keyName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	private = strings.TrimSpace(private)
	path := filepath.Join(w.l.opts.Dir, keyName)
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, fmt.Errorf("%s is not a key: restore it", path)
	}
	public, err := publicOf(private)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch there, err := w.readSmall(publicName); {
	case errors.Is(err, fs.ErrNotExist):
		if err := w.writeSmall(publicName, public+"\n"); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case strings.TrimSpace(there) != public:
		return nil, fmt.Errorf("%s is not the public key of %s: restore the one that is not the log's",
			filepath.Join(w.l.opts.Dir, publicName), path)
	}
	return &keys{signer, verifier}, nil
}

// makeKeys makes a log's first key. The private one is there before the
// public one, so that a crash does not leave a log that seems to have lost
// its key.
func (w *writer) makeKeys() (*keys, error) {
	if _, err := w.fs.Lstat(publicName); err == nil {
		return nil, w.keyMissing(publicName + " is there")
	}
	private, err := newKey()
	if err != nil {
		return nil, err
	}
	if err := w.writeSmall(keyName, private+"\n"); err != nil {
		return nil, err
	}
	return w.loadKeys()
}

func (w *writer) keyMissing(why string) error {
	return fmt.Errorf("%s is missing, and the log is older than it: %s. Restore the key", filepath.Join(w.l.opts.Dir, keyName), why)
}

// readSmall reads a private file of the directory.
func (w *writer) readSmall(name string) (string, error) {
	f, err := w.fs.OpenRead(name)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("open %s: %w", name, err)
	}
	if err := checkFile(filepath.Join(w.l.opts.Dir, name), fi); err != nil {
		return "", err
	}
	return readNote(f, name)
}

func readNote(f file, name string) (string, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxNote))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(b), nil
}

// writeSmall writes a file of the directory whole or not at all.
func (w *writer) writeSmall(name, content string) error { return writeSmall(w.fs, name, content) }

func writeSmall(d fsys, name, content string) (err error) {
	temp := tempPrefix + randomHex()
	f, err := createWith(d, temp, []byte(content))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err = f.Close(); err == nil {
		err = d.Rename(temp, name)
	}
	if err != nil {
		_ = d.Remove(temp)
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := d.SyncDir(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
