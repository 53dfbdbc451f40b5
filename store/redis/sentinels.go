package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// view is what a sentinel says.
type view struct {
	epoch    int             // of the failover that made the master; -1: unknown
	replicas map[string]bool // by address: whether it is up
}

// askSentinels asks every sentinel, since one that was just started may not know of a replica that is down, and one
// that was cut off may not know of a failover. Those that do not answer are left out.
func (s *Store) askSentinels(ctx context.Context) (views []view) {
	answers := make(chan *view, len(s.option.InitAddress))
	for _, at := range s.option.InitAddress {
		go func() {
			v, err := s.askSentinel(ctx, at)
			if err != nil {
				v = nil
			}
			answers <- v
		}()
	}
	for range s.option.InitAddress {
		if v := <-answers; v != nil {
			views = append(views, *v)
		}
	}
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
		c.B().Arbitrary("SENTINEL", "MASTER", sentinel.MasterSet).Build())
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
	if epoch, err := strconv.Atoi(master["config-epoch"]); err == nil {
		v.epoch = epoch
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
	latest := view{epoch: -1}
	if !slices.Contains(s.option.InitAddress, at) { // no sentinel
		asking, cancel := context.WithTimeout(ctx, dialer.Timeout/2)
		for _, v := range s.askSentinels(asking) {
			if v.epoch > latest.epoch {
				latest = v
			}
		}
		cancel()
	}
	if _, replaced := latest.replicas[at]; replaced {
		return nil, fmt.Errorf("%s is not the master, as the sentinels say", at)
	}
	if secure != nil {
		return (&tls.Dialer{NetDialer: dialer, Config: secure}).DialContext(ctx, "tcp", at)
	}
	return dialer.DialContext(ctx, "tcp", at)
}
