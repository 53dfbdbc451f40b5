package curfew

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

const (
	statusName    = "replicas" // the shared value
	statusPurpose = "replicas v1"
	statusEvery   = 30 * time.Second
	statusLost    = 3 * statusEvery // a replica that has been silent for longer is shown as gone
	statusForget  = time.Hour
	statusMost    = 200 // replicas
)

// Replica is one process on the store.
type Replica struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // of its machine
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"`
	// InSync: it hears of the sessions that end on other replicas. While it is false each of its checks asks the store.
	InSync bool `json:"in_sync"`
	Gone   bool `json:"gone,omitempty"` // it was stopped, or has not been heard of for a while
}

// ProviderTraffic is what is known of the logouts of a provider, on all replicas.
type ProviderTraffic struct {
	LastLogout time.Time `json:"last_logout,omitzero"` // when it last sent one that was accepted; zero: not since Since
	Since      time.Time `json:"since"`                // since when that is watched
	SignIns    int       `json:"sign_ins"`             // since LastLogout, or else since Since
	// RefreshEnded is how many sessions ended since then because a refresh was refused: that is what a provider looks
	// like that signs people out and does not say so.
	RefreshEnded int `json:"refresh_ended"`
}

// shared is what the replicas tell each other.
type shared struct {
	Replicas  map[string]Replica         `json:"replicas"`
	Providers map[string]ProviderTraffic `json:"providers"`
}

// replicas tells other replicas about this one, and collects what they tell.
type replicas struct {
	store   store.SharedValues
	keyring *keyring.Keyring
	now     func() time.Time
	log     *slog.Logger
	inSync  func() bool
	names   []string // of the providers

	mu    sync.Mutex
	self  Replica
	seen  map[string]*ProviderTraffic // by provider, since the last write
	known shared                      // as of the last write
}

func thisReplica(now time.Time) Replica {
	name, _ := os.Hostname()
	return Replica{ID: rand.Text()[:12], Name: name, Started: store.Time(now)}
}

func (f *replicas) count(provider string, change func(*ProviderTraffic)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[provider] == nil {
		f.seen[provider] = new(ProviderTraffic)
	}
	change(f.seen[provider])
}

func (f *replicas) signedIn(provider string) {
	f.count(provider, func(t *ProviderTraffic) { t.SignIns++ })
}

func (f *replicas) refreshEnded(provider string) {
	f.count(provider, func(t *ProviderTraffic) { t.RefreshEnded++ })
}

func (f *replicas) sentLogout(provider string) {
	f.count(provider, func(t *ProviderTraffic) { *t = ProviderTraffic{LastLogout: store.Time(f.now())} })
}

// run tells the others every half a minute, and at the end that this replica stops.
func (f *replicas) run(ctx context.Context) {
	for {
		f.write(ctx, false)
		if !wait.Sleep(ctx, statusEvery) {
			break
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	f.write(last, true)
}

// write merges what this replica knows into the shared value. When it fails, the next write has it too.
func (f *replicas) write(ctx context.Context, stopping bool) {
	for ctx.Err() == nil {
		all, revision, err := f.load(ctx)
		if err != nil {
			f.log.DebugContext(ctx, "what other replicas tell cannot be read", "event", "replicas_unread", "error", err)
			return
		}
		f.mu.Lock()
		now := store.Time(f.now())
		self := f.self
		self.Seen, self.InSync, self.Gone = now, f.inSync(), stopping
		all.Replicas[self.ID] = self
		for id, r := range all.Replicas {
			if now.Sub(r.Seen) > statusForget {
				delete(all.Replicas, id)
			}
		}
		counted := f.seen
		f.seen = map[string]*ProviderTraffic{}
		f.mu.Unlock()
		for _, name := range f.names {
			all.Providers[name] = merge(all.Providers[name], counted[name], now)
		}
		plain, err := json.Marshal(all)
		if err == nil && len(all.Replicas) <= statusMost {
			err = f.store.Save(ctx, statusName, f.keyring.Seal(statusPurpose, []byte(statusName), plain), revision)
		}
		f.mu.Lock()
		if err == nil {
			f.known = all
			f.mu.Unlock()
			return
		}
		for name, t := range counted { // for the next time
			later := f.seen[name]
			if later == nil {
				later = new(ProviderTraffic)
			}
			if later.LastLogout.IsZero() {
				later.LastLogout = t.LastLogout
				later.SignIns, later.RefreshEnded = later.SignIns+t.SignIns, later.RefreshEnded+t.RefreshEnded
			}
			f.seen[name] = later
		}
		f.mu.Unlock()
		if !errors.Is(err, store.ErrConflict) {
			f.log.DebugContext(ctx, "other replicas cannot be told", "event", "replicas_untold", "error", err)
			return
		}
	}
}

// merge adds what one replica has counted to what is known.
func merge(known ProviderTraffic, counted *ProviderTraffic, now time.Time) ProviderTraffic {
	if known.Since.IsZero() {
		known.Since = now
	}
	switch {
	case counted == nil:
	case counted.LastLogout.After(known.LastLogout):
		known.LastLogout, known.SignIns, known.RefreshEnded = counted.LastLogout, counted.SignIns, counted.RefreshEnded
	default:
		known.SignIns, known.RefreshEnded = known.SignIns+counted.SignIns, known.RefreshEnded+counted.RefreshEnded
	}
	return known
}

func (f *replicas) load(ctx context.Context) (all shared, revision int64, err error) {
	value, revision, err := f.store.Load(ctx, statusName)
	if err != nil {
		return all, 0, err
	}
	if value != nil {
		if plain, err := f.keyring.Open(statusPurpose, []byte(statusName), value); err == nil {
			_ = json.Unmarshal(plain, &all) // what cannot be read is told anew
		}
	}
	if all.Replicas == nil {
		all.Replicas = map[string]Replica{}
	}
	if all.Providers == nil {
		all.Providers = map[string]ProviderTraffic{}
	}
	return all, revision, nil
}

// Replicas returns the replicas that have been on the store within the last hour, the longest running first, as of
// about half a minute ago.
func (rp *RP) Replicas(ctx context.Context) ([]Replica, error) {
	all, _, err := rp.replicas.load(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Replica, 0, len(all.Replicas))
	for _, r := range all.Replicas {
		r.Gone = r.Gone || rp.replicas.now().Sub(r.Seen) > statusLost
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Replica) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Traffic returns what is known of the logouts of each provider, by its name, on all replicas, as of about half a
// minute ago.
func (rp *RP) Traffic(ctx context.Context) (map[string]ProviderTraffic, error) {
	rp.replicas.write(ctx, false) // what this replica has counted meanwhile
	all, _, err := rp.replicas.load(ctx)
	return all.Providers, err
}
