package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/curfew/store"
)

func newStoreCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use: "store", Short: "Move sessions from one store to another",
		Args: cobra.ArbitraryArgs, RunE: chooseCommand,
	}
	cmd.AddCommand(newStoreCopyCmd(p))
	return cmd
}

func newStoreCopyCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy FROM TO",
		Short: "Copy everybody's sessions to another store",
		Long: `Copies the living sessions of one store, and the keys that sign logout tokens, to another that is not in service
yet. Stores are named as for serve --store; @FILE stands for the first line of a file, for addresses with a password.

FROM is not changed, and gateways may go on using it (an SQLite file cannot be shared: stop its gateway first). Run it as
often as you like; what has changed since is all that is written. To move, run it once while FROM is in service, stop
the gateways, run it again with --mirror, and start them with --store TO and the key file that they had: without that
nobody could read the sessions, and everybody would have to sign in again.

What is at TO and not at FROM has ended at FROM since an earlier copy, or somebody signed in at TO. In the first case
it must end: say --mirror. In the second TO is in service, and nothing can be copied there: what has ended there could
not be told from what is yet to be copied. Without --mirror such a copy is refused before it changes anything.

The exit status is 0 when TO has every session of FROM, 3 when all was copied that was there, and FROM went on changing: it
is in service. It is 1 when the copy was refused, failed or was interrupted, 2 when it was asked for in a wrong way. See
docs/moving.md.`,
		Example: `  curfew store copy sqlite:/var/lib/curfew/curfew.db redis://127.0.0.1:6379
  curfew store copy --mirror @/etc/curfew/old-store @/etc/curfew/new-store`,
		Args: cobra.ExactArgs(2),
	}
	mirror := cmd.Flags().Bool("mirror", false, "end at TO what is not at FROM, and replace TO's signing keys: no gateway uses TO yet")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, to, err := parseStores(args[0], args[1])
		if err != nil {
			return exit{2, err}
		}
		return storeCopy(cmd.Context(), p, from, to, *mirror)
	}
	return cmd
}

// parseStores reads both addresses, and tells what is wrong with both.
func parseStores(from, to string) (a, b storeURL, err error) {
	a, errA := parseCopied("FROM", from)
	b, errB := parseCopied("TO", to)
	if err := errors.Join(errA, errB); err != nil {
		return a, b, flat(err)
	}
	if a.scheme == b.scheme && a.rest == b.rest || a.file() != "" && sameFile(a.file(), b.file()) {
		return a, b, errors.New("FROM and TO are the same store")
	}
	return a, b, nil
}

func parseCopied(what, address string) (storeURL, error) {
	if name, ok := strings.CutPrefix(address, "@"); ok {
		text, err := os.ReadFile(name)
		if err != nil {
			return storeURL{}, fmt.Errorf("%s: %w", what, err)
		}
		address, _, _ = strings.Cut(string(text), "\n")
		address = strings.TrimSpace(address)
	}
	s, err := parseStore(address)
	switch {
	case err != nil:
		return s, fmt.Errorf("%s: %w", what, err)
	case s.scheme == "memory":
		return s, fmt.Errorf("%s: memory: is seen by the process alone whose memory it is, so there is nothing to copy", what)
	}
	return s, nil
}

// file is the one file that holds the store, or empty.
func (s storeURL) file() string {
	if s.kind.file == nil {
		return ""
	}
	return s.kind.file(s.rest)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// openCopied opens a store; FROM as it is.
func openCopied(ctx context.Context, p *process, what string, s storeURL, asItIs bool) (store.Store, error) {
	open := s.kind.open
	if asItIs && s.kind.openAsItIs != nil {
		open = s.kind.openAsItIs
	}
	r := new(report)
	backend, err := open(ctx, s.rest, slog.New(storeWarnings{r}))
	if err != nil && s.kind.inUse != nil && s.kind.inUse(err) {
		return nil, fmt.Errorf("%s: %w; an SQLite file is for one process: stop the gateway, copy, then start it with --store TO", what, err)
	}
	if err != nil && asItIs && s.kind.older != nil && s.kind.older(err) {
		return nil, fmt.Errorf("%s: %w; it is not changed by a copy: use the curfew that runs there, or let serve of this one bring it forward first", what, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	for _, f := range r.all {
		if what == "TO" {
			fmt.Fprintf(p.stderr, "%s: warning: %s: %s\n", what, f.Detail, f.Do)
		}
	}
	return backend, nil
}

// inService is the exit status of a copy that is not the last, since FROM goes on changing.
const inService = 3

var errInterrupted = errors.New("interrupted; what was copied stays at TO, and nothing is lost: run it again")

func storeCopy(ctx context.Context, p *process, fromURL, toURL storeURL, mirror bool) (err error) {
	settled := true
	defer func() {
		if err == nil && !settled {
			err = exit{status: inService}
		}
	}()
	from, errFrom := openCopied(ctx, p, "FROM", fromURL, true)
	to, errTo := openCopied(ctx, p, "TO", toURL, false)
	for _, s := range []store.Store{from, to} {
		if s != nil {
			defer func() { err = errors.Join(err, s.Close()) }()
		}
	}
	now, errClock := clock(ctx, from, to)
	switch err := errors.Join(errFrom, errTo, errClock); {
	case ctx.Err() != nil:
		return errInterrupted
	case err != nil:
		return flat(err)
	}
	shown := p.progress()
	m := &mover{from: from, to: to, now: now, mirror: mirror, moved: shown.show}
	var total tally
	total, settled, err = m.run(ctx)
	shown.end()
	var refused *refusal
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case errors.As(err, &refused):
		return refuse(p, refused, total.changes() > 0)
	case err != nil:
		return fmt.Errorf("%w\nWhat was copied stays at TO, and nothing is lost: run it again", err)
	}
	tellCopy(p, total, settled, toURL)
	return tellNotices(ctx, p, from)
}

// clock is the time by the store whose clock all replicas will see, or have seen, or else by our own.
func clock(ctx context.Context, from, to store.Store) (func() time.Time, error) {
	for _, s := range []store.Store{to, from} {
		if s == nil { // it could not be opened
			continue
		}
		read := s.Clock().Now
		if read == nil {
			continue
		}
		began := time.Now()
		at, err := read(ctx)
		if err != nil {
			return nil, err
		}
		offset := at.Sub(began)
		return func() time.Time { return store.Time(time.Now().Add(offset)) }, nil
	}
	return func() time.Time { return store.Time(time.Now()) }, nil
}

// refuse says what TO has that FROM has not, and what that means.
func refuse(p *process, r *refusal, changed bool) error {
	for _, s := range r.extra {
		fmt.Fprintf(p.stdout, "at TO alone: session %s of %s, since %s\n", s.Key.Handle(), printable(s.Subject), s.Created.Format(time.RFC3339))
	}
	if n := r.extras - len(r.extra); n > 0 && len(r.extra) > 0 {
		fmt.Fprintf(p.stdout, "and %d more\n", n)
	}
	after := "Nothing was changed."
	if changed {
		after = "There were none when the copy began, so people sign in at TO already."
	}
	return fmt.Errorf(`%w. %s
If no gateway uses TO yet, an earlier copy has left this: run it again with --mirror, which makes TO what FROM is.
If one does, TO is in service, and nothing can be copied there: sessions that ended there would live again`, r, after)
}

func tellCopy(p *process, t tally, settled bool, to storeURL) {
	for _, r := range []struct {
		n    int
		what string
	}{
		{t.created, "copied"},
		{t.updated, "brought up to date"},
		{t.same, "there already"},
		{t.ended, "ended at TO: they had ended at FROM"},
		{t.barred, "not copied: a logout at TO has named them"},
	} {
		if r.n > 0 || r.what == "copied" {
			fmt.Fprintf(p.stdout, "%8d  %s\n", r.n, r.what)
		}
	}
	if !settled {
		fmt.Fprintf(p.stdout, "FROM is in service: it changed while it was copied. Before gateways start on TO, stop those on FROM and run this again, with --mirror.\n")
		return
	}
	fmt.Fprintf(p.stdout, "TO has every session of FROM, as it was there just now: %d.\n", t.living-t.barred)
	fmt.Fprintf(p.stdout, "Gateways that start with --store %s need the key file of those on FROM.\n", to)
}

// tellNotices says what FROM has yet to deliver: that stays there, where what it holds may be claimed.
func tellNotices(ctx context.Context, p *process, from store.Store) error {
	all, err := from.Stats(ctx)
	if err != nil {
		return fmt.Errorf("the sessions are copied; but whether notices are to be delivered from FROM cannot be seen: %w", err)
	}
	pending, dead := 0, 0
	for _, t := range all {
		pending, dead = pending+t.Pending, dead+t.Dead
	}
	if pending > 0 {
		fmt.Fprintf(p.stdout, "warning: %s still to be delivered from FROM, and not copied: let one gateway go on with --store FROM, reached by nobody, until `curfew notice list` is empty there.\n", count(pending, "notice"))
	}
	if dead > 0 {
		fmt.Fprintf(p.stdout, "warning: %s given up, to be seen at FROM alone.\n", count(dead, "notice"))
	}
	return nil
}
