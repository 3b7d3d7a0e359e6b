package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidwall/gjson"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/agents"
	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/file"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/store/revocations"
	"github.com/caddyvault/caddyvault/store/secrets"
)

// Names of the files with generated keys in the data directory (config.md,
// "Data directory").
const (
	KEKFile        = ".vault-key"
	AdminTokenFile = "admin.token"
	SigningKeyFile = "signing-key.pem"
)

// StateOptions says where the state is and what opens it.
type StateOptions struct {
	// DataDir and ServicesDir are absolute paths.
	DataDir     string
	ServicesDir string

	// EncryptionKey is the configured key that wraps the keyset: 64 hex
	// digits or 32 bytes in base64. Empty means the generated one in DataDir.
	EncryptionKey string

	// Audit is how the audit log is kept. Its directory, clock, logger and
	// what is replayed of it are set here.
	Audit audit.Options

	// ParseService compiles a service's file: policy.ParseService, or what
	// looks at more than that does. Its errors are refusals.
	ParseService func(name string, data []byte) (*policy.Compiled, error)

	Logger *zap.Logger
	Now    func() time.Time
}

// State is what outlives a configuration. It is opened once for a data
// directory and shared by every configuration that names it.
type State struct {
	dataDir     string
	servicesDir string
	logger      *zap.Logger
	now         func() time.Time

	store       store.Store
	secrets     *secrets.Secrets
	revocations *revocations.Set
	audit       *audit.Log
	services    services
	agents      agentSet
	live        *liveCalls
	watchers    watchers
	budgets     *budgets
	allowances  *allowances
	signing     *signingKeys
	proofs      *proofs

	// admins serialises what administrators change: a check and the change
	// that rests on it belong together.
	admins sync.Mutex

	// anchored is what the audit log knew when it was opened.
	anchored anchors

	stop       context.CancelFunc
	background sync.WaitGroup
}

// anchors are facts that the audit log holds against the other files: a file
// that is older than the log, or gone, is not a first start.
type anchors struct {
	// secrets maps a secretRef to the version that was last set; a removed
	// one is absent.
	secrets map[string]uint64

	// signed is set once a token was issued under a generated key, and
	// revoked once anything was revoked.
	signed, revoked bool
}

// OpenState opens or creates the state. What it finds damaged, older than the
// audit log knows, or readable by others is refused by name.
func OpenState(ctx context.Context, o StateOptions) (_ *State, err error) {
	st := &State{dataDir: o.DataDir, servicesDir: o.ServicesDir, logger: o.Logger, now: o.Now, live: newLiveCalls(), budgets: newBudgets(o.Now), allowances: newAllowances(o.Now), signing: newSigningKeys(), proofs: newProofs(o.Now)}
	var undo []func() error
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				err = errors.Join(err, undo[i]())
			}
		}
	}()

	st.services.compile = &compilations{parse: o.ParseService, inForce: st.services.inForce}
	files, err := file.Open(file.Options{
		DataDir:         o.DataDir,
		ServicesDir:     o.ServicesDir,
		Logger:          o.Logger.Named("store"),
		Now:             o.Now,
		ValidateService: st.services.compile.validate,
		ValidateAgent: func(name string, data []byte) error {
			_, err := agents.Parse(name, data)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	st.store = files
	undo = append(undo, files.Close)

	if files.SecretsFileState() {
		if logs, err := filepath.Glob(filepath.Join(o.DataDir, "audit.log*.jsonl")); err != nil || len(logs) == 0 {
			return nil, fmt.Errorf("%s is missing, and only it knows which versions of the secrets are the newest: restore it", filepath.Join(o.DataDir, "audit.log.jsonl"))
		}
	}
	st.anchored.secrets = map[string]uint64{}
	spent, recent := newBudgetReplay(st.budgets), newRecentAgents(o.Now())
	log := o.Audit
	log.Dir, log.Now, log.Logger = o.DataDir, o.Now, o.Logger.Named("audit")
	log.Replay = st.replayed(spent, recent)
	log.Carry = carried
	if st.audit, err = audit.Open(log); err != nil {
		return nil, err
	}
	undo = append(undo, st.audit.Close)
	spent.done()

	if st.anchored.revoked && !files.RevocationsFileState() {
		return nil, fmt.Errorf("%s holds no revocations, and its audit log says that something was revoked: restore revocations.log", o.DataDir)
	}
	kek, err := st.encryptionKey(o.EncryptionKey, files.SecretsFileState())
	if err != nil {
		return nil, err
	}
	sealed := filepath.Join(o.DataDir, "secrets.enc")
	if st.secrets, err = secrets.Open(ctx, st.store, kek, secrets.Options{MustExist: len(st.anchored.secrets) > 0, Logger: o.Logger.Named("secrets"), Now: o.Now}); err != nil {
		return nil, fmt.Errorf("%s: %w", sealed, err)
	}
	undo = append(undo, st.secrets.Close)
	if st.audit.Seq() == 0 && len(st.secrets.List()) > 0 {
		return nil, fmt.Errorf("%s is empty, though there are secrets, and only it knows which versions of them are the newest: restore it", filepath.Join(o.DataDir, "audit.log.jsonl"))
	}
	if err := st.secrets.CheckVersions(st.anchored.secrets); err != nil {
		return nil, fmt.Errorf("%s: %w", sealed, err)
	}

	if st.revocations, err = revocations.Open(ctx, st.store, revocations.Options{Now: o.Now}); err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	st.stop = stop
	watcher, err := st.watch(background, store.Services, st.services.load)
	if err != nil {
		stop()
		return nil, err
	}
	for _, svc := range st.services.all() {
		if svc.err != nil {
			o.Logger.Error("service file is not valid", zap.String("service", svc.name), zap.Error(svc.err), zap.NamedError("cause", store.Cause(svc.err)))
		}
	}
	st.readLastUse()
	agentWatcher, err := st.watch(background, store.Agents, st.loadAgents)
	if err != nil {
		stop()
		watcher.Close()
		return nil, err
	}
	if err := st.endRecent(ctx, recent); err != nil {
		o.Logger.Error("the tokens of removed agents are void, but that could not be stored", zap.Error(err))
	}
	for _, f := range st.agents.files {
		if f.err != nil {
			o.Logger.Error("agent file is not valid", zap.Error(f.err))
		}
	}
	st.revocations.OnEnforce(func(revocations.Revocation) { st.live.revoked() })
	st.background.Add(5)
	go st.rotateOnSchedule(background)
	go st.follow(background, watcher)
	go st.followAgents(background, agentWatcher)
	go st.keepLastUse(background)
	go st.cutRevoked(background)
	return st, nil
}

// replayed takes, by event, what the log knows that the other files do not.
func (st *State) replayed(spent *budgetReplay, recent *recentAgents) map[string]func([]byte) {
	return map[string]func([]byte){
		"secret.set": func(line []byte) {
			st.anchored.secrets[gjson.GetBytes(line, "secretRef").Str] = gjson.GetBytes(line, "secretVersion").Uint()
		},
		"secret.remove": func(line []byte) {
			delete(st.anchored.secrets, gjson.GetBytes(line, "secretRef").Str)
		},
		"key.retired": func(line []byte) {
			st.signing.retired[gjson.GetBytes(line, "kid").Str] = true
		},
		"proxy.call.started": spent.started,
		"proxy.call":         spent.ended,
		siteEvent:            spent.charged,
		"token.revoked":      func([]byte) { st.anchored.revoked = true },
		"admin.addAgent":     recent.added,
		"admin.removeAgent":  recent.removed,
		"agent.changed":      recent.changed,
		"token.issued": func(line []byte) {
			recent.issued(line)
			st.anchored.signed = st.anchored.signed || gjson.GetBytes(line, "kid").Str != ""
		},
	}
}

// carried are the records of the log that outlive their segment: what is
// replayed, but for calls, which budgets count as long as a token lives, and
// nothing so young is dropped.
var carried = map[string]func(line []byte) (key string, keep bool){
	"secret.set":    func(line []byte) (string, bool) { return "secret " + gjson.GetBytes(line, "secretRef").Str, true },
	"secret.remove": func(line []byte) (string, bool) { return "secret " + gjson.GetBytes(line, "secretRef").Str, false },
	"key.retired":   func(line []byte) (string, bool) { return "retired " + gjson.GetBytes(line, "kid").Str, true },
	"token.revoked": func([]byte) (string, bool) { return "revoked", true },
	"token.issued": func(line []byte) (string, bool) {
		if gjson.GetBytes(line, "kid").Str == "" {
			return "", false
		}
		return "signed", true
	},
}

// encryptionKey returns the configured key or the generated one, which it
// makes only where nothing can be encrypted under an older one.
func (st *State) encryptionKey(configured string, encrypted bool) (secrets.KEK, error) {
	if configured != "" {
		return secrets.KEKFromString(configured)
	}
	path := filepath.Join(st.dataDir, KEKFile)
	if len(st.anchored.secrets) > 0 {
		encrypted = true
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if encrypted {
			return secrets.KEK{}, fmt.Errorf("%s is missing, and %s holds secrets encrypted under a key: restore the file, or set encryption_key to that key", path, st.dataDir)
		}
		return secrets.GenerateKEKFile(path)
	}
	return secrets.LoadKEKFile(path)
}

// Close ends the state: whatever is queued for the audit log is written, and
// the data directory is free for another process.
func (st *State) Close() error {
	st.stop()
	st.background.Wait()
	return errors.Join(
		st.secrets.Close(),
		st.audit.Close(),
		st.store.Close(),
	)
}

// Now is the vault's clock.
func (st *State) Now() time.Time { return st.now() }

// Audit returns the audit log.
func (st *State) Audit() *audit.Log { return st.audit }

// OnServiceChange registers f to be told the name of each service that changes
// or goes, until cancel is called. f is called under a lock and must not wait.
func (st *State) OnServiceChange(f func(name string)) (cancel func()) {
	return st.services.subscribe(f)
}

// loadOrCreatePrivate returns the content of a private file in the data
// directory, which create makes if it is missing.
func loadOrCreatePrivate(dir, name string, create func() []byte) (content []byte, created bool, err error) {
	content, err = fsx.ReadPrivate(filepath.Join(dir, name))
	if !errors.Is(err, fs.ErrNotExist) {
		return content, false, err
	}
	content = create()
	return content, true, fsx.WriteAtomic(dir, name, content, 0o600)
}
