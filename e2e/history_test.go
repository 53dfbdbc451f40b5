package e2e_test

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history is what was asked about one person, by their browsers, their provider and an operator, and what the
// replicas answered. Porcupine checks it against the three promises: it looks for an order of the operations in which
// each takes effect at one moment between its begin and its end, and in which every answer is right.
//
// The state is the phase of each session of the person:
//
//	absent ──login──▶ under way ──return──▶ alive
//	                      │                   │
//	                      └──logout─▶ barred  └──logout─▶ dead
//
// A logout that was answered 200 has taken effect by then (promise 1). One that was answered otherwise, or not at all,
// has no end: it takes effect at any later time, or never, and for each session that it names at the same time (promise
// 2). A token that is sent again has the same jti, so all its tries are one operation. Nothing else changes a phase
// (promise 3).

type phase uint8

const (
	absent phase = iota
	underWay
	living
	barred
	ended
)

func (p phase) String() string {
	return [...]string{"absent", "under way", "alive", "barred", "dead"}[p]
}

const (
	mostSessions = 12 // of one history
	// never is the end of an operation that may take effect at any later time.
	never = int64(math.MaxInt64)
)

// phases is a state.
type phases [mostSessions]phase

type action string

const (
	begins  action = "login begins"
	returns action = "login returns"
	checks  action = "check"
	ends    action = "logout"
	crashes action = "the memory is lost"
	loses   action = "a failover may lose the sign-in"
)

// deed is an operation, with its begin, its end and its answer.
type deed struct {
	action  action
	session int
	how     string // of a logout
	sid     string // the sessions that a logout names; empty: see only
	only    int    // the one session that a logout names, and 1; 0: all, if sid is empty
	replica int    // which gave the answer; -1: several, or none
	from    int64  // nanoseconds since the run began
	to      int64  // never: not answered, or not with success
	status  int    // of the answer
	tries   int    // how often it was sent

	sent  int64 // when a check was sent, if from was moved back
	early bool  // a login that may be refused, since it began just after a logout
}

// history is the deeds about one person.
type history struct {
	subject string
	sids    []string // of the sessions
	deeds   []deed
}

// refuses reports whether a deed was answered with a refusal.
func (d *deed) refuses() bool {
	return d.action == checks && d.status != http.StatusOK || d.action == returns && d.status != http.StatusSeeOther
}

// undoes reports whether a deed ends sessions.
func (d *deed) undoes() bool { return d.action == ends || d.action == crashes || d.action == loses }

func (h *history) names(d *deed, session int) bool {
	switch {
	case d.action == crashes:
		return true
	case !d.undoes():
		return false
	case d.only > 0:
		return d.only-1 == session
	default:
		return d.sid == "" || d.sid == h.sids[session]
	}
}

// step says whether the answer to an operation is right in a state, and returns the state after it.
func (h *history) step(at phases, d *deed) (bool, phases) {
	now := at[d.session]
	switch d.action {
	case begins:
		at[d.session] = underWay
	case returns:
		if d.status == http.StatusSeeOther {
			at[d.session] = living
			return now == underWay, at
		}
		at[d.session] = barred
		return now == barred || d.early, at
	case checks:
		return (now == living) == (d.status == http.StatusOK), at
	default:
		for s := range h.sids {
			switch {
			case !h.names(d, s):
			case at[s] == underWay:
				at[s] = barred
			case at[s] == living:
				at[s] = ended
			}
		}
	}
	return true, at
}

func (h *history) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return phases{} },
		Step: func(state, input, _ any) (bool, any) {
			d := input.(deed)
			return h.step(state.(phases), &d)
		},
		DescribeOperation: func(input, _ any) string {
			d := input.(deed)
			return d.String()
		},
		DescribeState: func(state any) string {
			at, all := state.(phases), []string{}
			for i := range h.sids {
				all = append(all, fmt.Sprint(i, " is ", at[i]))
			}
			return strings.Join(all, ", ")
		},
	}
}

// limits are what is promised only after a while.
type limits struct {
	ceiling time.Duration // for which a replica may serve its copy of a session that was ended at another one
	slack   time.Duration // after a logout, in which a new login may be refused
	// marks that bar every login from before a restart, however old they are: those of a store of one process
	restarts []int64
	// when another server became the master, or may have (docs/stores-redis.md). A sign-in of that time may be lost, and
	// so may be a logout that was not answered with success, also after somebody was refused because of it.
	failovers []fault
}

// failover reports whether a deed was done while a master was replaced, or soon after.
func (l *limits) failover(d *deed) bool {
	return slices.ContainsFunc(l.failovers, func(f fault) bool {
		return f.from-int64(time.Second) <= d.to && (f.to == 0 || d.from <= f.to+int64(10*time.Second))
	})
}

// allow applies the limits, once. A check of a copy may take effect earlier than it was sent, by the ceiling, but not
// before a logout that the same replica answered 200.
func (h *history) allow(l limits) {
	begun := make([]deed, len(h.sids))
	h.deeds = slices.DeleteFunc(h.deeds, func(d deed) bool {
		return d.refuses() && l.failover(&d)
	})
	for _, d := range slices.Clone(h.deeds) {
		if d.action == returns && l.failover(&d) {
			h.deeds = append(h.deeds, deed{action: loses, only: d.session + 1, replica: -1, from: d.from, to: never})
		}
		if d.action == begins {
			begun[d.session] = d
		}
	}
	for i := range h.deeds {
		d := &h.deeds[i]
		switch {
		case d.action == returns && d.status != http.StatusSeeOther:
			b := begun[d.session]
			restarted := slices.ContainsFunc(l.restarts, func(at int64) bool { return b.from < at && at < d.to })
			d.early = slices.ContainsFunc(h.deeds, func(e deed) bool {
				return h.names(&e, d.session) && e.from < b.to &&
					(restarted || e.to == never || e.to > b.from-int64(l.slack))
			})
		case d.action == checks && d.status == http.StatusOK:
			// The logout may have had its effect at the store, and its answer may still be on its way.
			earliest, copied := d.from-int64(l.ceiling), false
			for _, e := range h.deeds {
				switch {
				case e.action == loses || !h.names(&e, d.session) || e.from >= d.to || e.to <= d.from-int64(l.ceiling):
				case e.replica == d.replica && e.to <= d.from:
					earliest = max(earliest, e.to+1)
				default:
					copied = true
				}
			}
			if copied {
				d.sent, d.from = d.from, earliest
			}
		}
	}
}

// needed leaves out what says no more than something else:
//
//   - a check that was answered 200, if another one of its session began later and another one ended earlier: a session
//     lives once, without a break, so if it lived during those two, it lived during this one;
//   - any other check, if one that was answered the same began and ended within its time;
//   - what may have ended a session, or not, if nobody was refused because of it;
//   - a logout without success that was sent again and again. Whatever some of them may have done, as many of the first
//     may have done: one, and one more for each login that began since and could be ended too.
func (h *history) needed() []deed {
	all := slices.Clone(h.deeds)
	type target struct {
		sid  string
		only int
	}
	first, kept := map[target]int64{}, map[target]int{}
	slices.SortStableFunc(all, func(a, b deed) int { return cmp.Compare(a.from, b.from) })
	all = slices.DeleteFunc(all, func(d deed) bool {
		if !d.undoes() || d.to != never {
			return false
		}
		if !slices.ContainsFunc(h.deeds, func(r deed) bool { return r.refuses() && h.names(&d, r.session) }) {
			return true
		}
		if d.action != ends {
			return false
		}
		t := target{d.sid, d.only}
		if kept[t]++; kept[t] == 1 {
			first[t] = d.from
			return false
		}
		since := 1
		for _, b := range h.deeds {
			if b.action == begins && b.to > first[t] && h.names(&d, b.session) {
				since++
			}
		}
		return kept[t] > since
	})
	slices.SortFunc(all, func(a, b deed) int { return cmp.Or(cmp.Compare(b.from, a.from), cmp.Compare(a.to, b.to)) })
	type kind struct{ session, status int }
	within := map[kind]int64{} // the earliest end of those that began later
	soonest := map[kind]int64{}
	for _, d := range all {
		k := kind{d.session, d.status}
		if end, ok := soonest[k]; d.action == checks && (!ok || d.to < end) {
			soonest[k] = d.to
		}
	}
	all = slices.DeleteFunc(all, func(d deed) bool {
		if d.action != checks {
			return false
		}
		k := kind{d.session, d.status}
		end, later := within[k]
		if later && (end <= d.to || d.status == http.StatusOK && soonest[k] < d.to) {
			return true
		}
		within[k] = d.to
		return false
	})
	slices.Reverse(all)
	return all
}

// operations are deeds for porcupine; those that overlap are of different clients, so that it can draw them.
func operations(deeds []deed) []porcupine.Operation {
	var all []porcupine.Operation
	var lanes []int64
	for _, d := range deeds {
		lane := slices.IndexFunc(lanes, func(end int64) bool { return end < d.from })
		if lane < 0 {
			lane, lanes = len(lanes), append(lanes, 0)
		}
		lanes[lane] = d.to
		all = append(all, porcupine.Operation{ClientId: lane, Input: d, Call: d.from, Return: d.to})
	}
	return all
}

// decide is how long porcupine may think about one history. It takes under a millisecond for almost all.
const decide = time.Minute

func (h *history) check(deeds []deed) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(h.model(), operations(deeds), decide)
}

// shortest returns the smallest history that it can find in one that is wrong, and which is wrong too. Nothing is left
// out that would excuse an answer that stays: a login goes with all checks of its session, and a logout stays while
// there is an answer that it explains.
func (h *history) shortest(deeds []deed) []deed {
	wrong := func(which func(d *deed) bool) bool {
		rest := slices.DeleteFunc(slices.Clone(deeds), func(d deed) bool { return which(&d) })
		if len(rest) == len(deeds) || h.check(rest) != porcupine.Illegal {
			return false
		}
		deeds = rest
		return true
	}
	for again := true; again; {
		again = false
		for s := range h.sids {
			again = wrong(func(d *deed) bool { return d.session == s && !d.undoes() }) || again
		}
		for _, c := range slices.Backward(slices.Clone(deeds)) {
			explains := c.undoes() && slices.ContainsFunc(deeds, func(d deed) bool {
				return d.refuses() && h.names(&c, d.session)
			})
			if c.action == checks || c.undoes() && !explains {
				again = wrong(func(d *deed) bool { return *d == c }) || again
			}
		}
	}
	return deeds
}

func (d *deed) String() string {
	who := fmt.Sprint("session ", d.session)
	switch {
	case d.action == crashes:
		return string(crashes)
	case d.action == loses:
		return fmt.Sprintf("%s of session %d", loses, d.only-1)
	case d.action == ends && d.only > 0:
		who = fmt.Sprint("session ", d.only-1)
	case d.action == ends && d.sid != "":
		who = "sid " + d.sid
	case d.action == ends:
		who = "all sessions"
	}
	text := fmt.Sprintf("%s, %s", d.action, who)
	if d.how != "" {
		text = fmt.Sprintf("%s (%s), %s", d.action, d.how, who)
	}
	if d.replica >= 0 {
		text += fmt.Sprint(", replica ", d.replica)
	}
	switch {
	case d.to == never:
		text += ": no success"
	default:
		text += fmt.Sprint(": ", d.status)
	}
	if d.tries > 1 {
		text += fmt.Sprintf(" (sent %d times)", d.tries)
	}
	return text
}

// tell writes deeds with their times, and what went wrong with the machines meanwhile.
func (h *history) tell(deeds []deed, faults []fault) string {
	var b strings.Builder
	began, over := never, int64(0)
	for _, d := range deeds {
		began = min(began, cmp.Or(d.sent, d.from))
		over = max(over, cmp.Or(d.sent, d.from))
		if d.to != never {
			over = max(over, d.to)
		}
	}
	at := func(t int64) string {
		if t == never {
			return "…"
		}
		return fmt.Sprintf("%.4f", time.Duration(t-began).Seconds())
	}
	fmt.Fprintf(&b, "%s, seconds since its first operation:\n", h.subject)
	for _, d := range deeds {
		fmt.Fprintf(&b, "  %10s to %10s  %s\n", at(cmp.Or(d.sent, d.from)), at(d.to), d.String())
	}
	for i, sid := range h.sids {
		if slices.ContainsFunc(deeds, func(d deed) bool { return d.action == begins && d.session == i }) {
			fmt.Fprintf(&b, "  session %d has the sid %s\n", i, sid)
		}
	}
	for _, f := range faults {
		if f.from < over && (f.to == 0 || f.to > began) {
			fmt.Fprintf(&b, "  %10s to %10s  %s\n", at(f.from), at(cmp.Or(f.to, never)), f.what)
		}
	}
	return b.String()
}

// fault is what was done to the machines.
type fault struct {
	what     string
	from, to int64 // to 0: it lasts
}
