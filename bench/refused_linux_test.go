package bench

import (
	"slices"
	"time"

	"example.com/curfew/internal/servers"
)

// refusedThere ends sessions at one replica while another is asked about them over and over, on one connection.
func (r *run) refusedThere() {
	n := 200
	if r.quick {
		n = 30
	}
	for _, kind := range []string{"PostgreSQL", "Redis", "Redis Cluster"} {
		var at string
		onCore(serverCore, func() {
			switch kind {
			case "PostgreSQL":
				at = servers.Schema(r.b, r.postgres.URL)
			case "Redis":
				at = servers.OwnRedis(r.b, "--appendfsync", "always").URL
			default:
				at = servers.RedisCluster(r.b, "--appendfsync", "always").URL
			}
		})
		dir := r.b.TempDir()
		here, there := freeAddr(r.b), freeAddr(r.b)
		r.serve(r.program, dir, here, here, at)
		pid, log := r.serve(r.program, dir, there, here, at)
		p := &peer{target: target{name: "Curfew", addr: here, pid: []int{pid}, log: log},
			login: "/auth/login?return_to=/", check: "/auth/verify", logout: "/auth/backchannel-logout", ours: true}
		f := refusal{Store: kind}
		for range n {
			f.Late = append(f.Late, r.late(p, there))
		}
		slices.Sort(f.Late)
		r.results.Refused = append(r.results.Refused, f)
		r.say("refused there, %s: p50 %.1f ms, p99 %.1f ms, worst %.1f ms", kind, f.at(500), f.at(990), f.at(1000))
	}
}

// late returns by how many milliseconds the last 200 of the other replica came after that of the logout.
func (r *run) late(p *peer, there string) float64 {
	p.live = nil
	r.signIn(p, 1, 1)
	s := p.live[0]
	token := r.op.logoutToken("", s.sid, r.jti())
	cached, last := make(chan struct{}), make(chan time.Time, 1)
	go func() {
		c := &conn{addr: there}
		defer c.close()
		var at time.Time
		for n := 0; ; n++ {
			status, err := c.ask("GET", p.check, s.cookie, "")
			if n == 3 { // the first was not from its cache
				close(cached)
			}
			if err != nil || status != 200 {
				if n < 3 {
					close(cached)
				}
				last <- at
				return
			}
			at = time.Now()
		}
	}()
	<-cached
	c := &conn{addr: p.addr}
	defer c.close()
	status, err := c.ask("POST", p.logout, "", token)
	done := time.Now()
	if err != nil || status != 200 {
		r.b.Fatalf("a logout was answered %d: %v\n%s", status, err, p.tail())
	}
	return float64((<-last).Sub(done).Microseconds()) / 1000
}
