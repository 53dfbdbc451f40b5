package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/rueidis"
)

// view is what a sentinel says.
type view struct {
	epoch    int             // of the failover that made the master; -1: unknown
	master   string          // its address
	replicas map[string]bool // by address: whether it is up
}

// sentinels remembers what each sentinel said last, by its address.
type sentinels struct {
	mu   sync.Mutex
	said map[string]view
}

// note replaces what these sentinels said, and reports whether a server is the master for one of those that know of the
// latest failover. The others count with what they said before: one that knows of it may be slow to answer, and then
// one that does not know yet is no reason to go back.
func (s *sentinels) note(views map[string]view, at string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said == nil {
		s.said = make(map[string]view)
	}
	maps.Copy(s.said, views)
	latest := -1
	for _, v := range s.said {
		latest = max(latest, v.epoch)
	}
	for _, v := range s.said {
		if v.epoch == latest && v.master == at {
			return true
		}
	}
	return latest == -1 // this user may not be allowed to ask
}

// askSentinels asks every sentinel, since one that was just started may not know of a replica that is down, and one
// that was cut off may not know of a failover. Those that do not answer are left out.
func (s *Store) askSentinels(ctx context.Context) map[string]view {
	var mu sync.Mutex
	views := make(map[string]view)
	var asked sync.WaitGroup
	for _, at := range s.option.InitAddress {
		asked.Go(func() {
			if v, err := s.askSentinel(ctx, at); err == nil {
				mu.Lock()
				defer mu.Unlock()
				views[at] = *v
			}
		})
	}
	asked.Wait()
	return views
}

func (s *Store) askSentinel(ctx context.Context, at string) (*view, error) {
	o, sentinel := s.option, s.option.Sentinel
	o.InitAddress, o.ForceSingleClient, o.SelectDB = []string{at}, true, 0
	o.Username, o.Password, o.ClientName = sentinel.Username, sentinel.Password, sentinel.ClientName
	o.Dialer, o.TLSConfig, o.DialCtxFn = sentinel.Dialer, sentinel.TLSConfig, nil
	o.Sentinel, o.DisableRetry, o.PipelineMultiplex = rueidis.SentinelOption{}, true, -1
	c, err := dial(ctx, o)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answers := c.DoMulti(ctx, c.B().Arbitrary("SENTINEL", "REPLICAS", sentinel.MasterSet).Build(),
		c.B().Arbitrary("SENTINEL", "MASTER", sentinel.MasterSet).Build(),
		c.B().Arbitrary("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.MasterSet).Build())
	list, err := answers[0].ToArray()
	if err != nil {
		return nil, err
	}
	v := &view{epoch: -1, replicas: make(map[string]bool)}
	for _, one := range list {
		about, err := one.AsStrMap()
		if err != nil {
			return nil, errAnswer
		}
		// Of a master that was replaced, a sentinel does not say for a while that it is down, but is not connected to it.
		up := !strings.Contains(about["flags"], "down") && !strings.Contains(about["flags"], "disconnected")
		v.replicas[net.JoinHostPort(about["ip"], about["port"])] = up
	}
	master, _ := answers[1].AsStrMap() // this user may not be allowed to ask
	epoch, err := strconv.Atoi(master["config-epoch"])
	// While the sentinel that has promoted a replica is not done with the others, the address in answers[1] is that of
	// the old master, beside the new epoch. Clients are given that of the new one.
	if address, wrong := answers[2].AsStrSlice(); err == nil && wrong == nil && len(address) == 2 {
		v.epoch, v.master = epoch, net.JoinHostPort(address[0], address[1])
	}
	return v, nil
}

// checkSentinels asks the sentinels which replicas the master has.
func (s *Store) checkSentinels(ctx context.Context) error {
	views, replicas := s.askSentinels(ctx), make(map[string]bool)
	for _, v := range views {
		for name, up := range v.replicas {
			replicas[name] = replicas[name] || up
		}
	}
	// Sentinels are for masters with replicas, so unless they say that there is none, assume one.
	need := map[string]bool{"": len(views) == 0 || len(replicas) > 0}
	all := map[string]map[string]bool{"": replicas}
	if len(views) == 0 {
		all = nil
	}
	s.learn(ctx, map[string]bool{"": true}, need, all, [buckets]string{}, nil)
	return nil
}

// dialMaster connects to a server, but not to one that is a master no longer. After a failover the old master may be
// started again: it takes itself for the master until the sentinels have told it, some ten seconds later. The client
// would go back to it, find nobody who has signed in since, and everybody who was signed out since.
func (s *Store) dialMaster(ctx context.Context, at string, dialer *net.Dialer, secure *tls.Config) (net.Conn, error) {
	if !slices.Contains(s.option.InitAddress, at) { // no sentinel
		asking, cancel := context.WithTimeout(ctx, dialer.Timeout/2)
		views := s.askSentinels(asking)
		cancel()
		if !s.sentinels.note(views, at) {
			return nil, fmt.Errorf("%s is not the master, as the sentinels say", at)
		}
	}
	if secure != nil {
		return (&tls.Dialer{NetDialer: dialer, Config: secure}).DialContext(ctx, "tcp", at)
	}
	return dialer.DialContext(ctx, "tcp", at)
}
