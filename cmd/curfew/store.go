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

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/cmd/curfew/internal/stores"
	"example.com/curfew/cmd/curfew/internal/terminal"
	"example.com/curfew/store"
	storecopy "example.com/curfew/store/copy"
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
		Short: "Copy all sessions to another store",
		Long: `Copies the active sessions of one store, and the keys that sign logout tokens, to another store that no
gateway uses yet. Stores are given as for serve --store. @FILE is the first line of a file, for addresses with a
password.

FROM is not changed, and gateways may go on using it (an SQLite file cannot be shared: stop its gateway first).
The copy can be repeated; then only changes are written. To move, copy once while FROM is in use, stop the
gateways, copy again with --mirror, and start them with --store TO and the same key file: without it no session
can be read, and everybody must sign in again.

A session that is only at TO has either ended at FROM since an earlier copy, or was created at TO. In the first
case it must end: use --mirror. In the second TO is in use, and nothing can be copied there: sessions that ended
there could not be distinguished from those still to be copied. Without --mirror such a copy is refused before it
changes anything.

The exit status is 0 if TO has every session of FROM; 3 if everything was copied, but FROM went on changing
because it is in use; 1 if the copy was refused, failed or was interrupted; 2 if the command line is wrong. See
docs/moving.md.`,
		Example: `  curfew store copy sqlite:/var/lib/curfew/curfew.db redis://127.0.0.1:6379
  curfew store copy --mirror @/etc/curfew/old-store @/etc/curfew/new-store`,
		Args: takes("FROM", "TO"),
	}
	mirror := cmd.Flags().Bool("mirror", false,
		"end the sessions that are only at TO, and replace TO's signing keys; no gateway may use TO")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, to, err := parseStores(args[0], args[1])
		if err != nil {
			return exit{2, err}
		}
		return copyStores(cmd.Context(), p, from, to, *mirror)
	}
	return cmd
}

// parseStores parses both addresses. The error lists the faults of both.
func parseStores(from, to string) (a, b stores.Address, err error) {
	a, errA := parseAddress("FROM", from)
	b, errB := parseAddress("TO", to)
	if err := errors.Join(errA, errB); err != nil {
		return a, b, config.OneLine(err)
	}
	if a == b || a.File() != "" && sameFile(a.File(), b.File()) {
		return a, b, errors.New("FROM and TO are the same store")
	}
	return a, b, nil
}

func parseAddress(what, address string) (stores.Address, error) {
	if name, ok := strings.CutPrefix(address, "@"); ok {
		text, err := os.ReadFile(name)
		if err != nil {
			return stores.Address{}, fmt.Errorf("%s: %w", what, err)
		}
		address, _, _ = strings.Cut(string(text), "\n")
		address = strings.TrimSpace(address)
	}
	a, err := stores.Parse(address)
	switch {
	case err != nil:
		return a, fmt.Errorf("%s: %w", what, err)
	case a.InMemory():
		return a, fmt.Errorf("%s: memory: exists only inside one process, so there is nothing to copy",
			what)
	}
	return a, nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// openFrom opens the store to copy from, without changing it.
func openFrom(ctx context.Context, a stores.Address) (store.Store, error) {
	backend, err := a.OpenUnchanged(ctx, slog.New(slog.DiscardHandler))
	switch {
	case stores.IsInUse(err):
		return nil, errInUse("FROM", err)
	case stores.IsOlder(err):
		return nil, fmt.Errorf("FROM: %w; it is not changed by a copy: "+
			"use the curfew that runs there, or let serve of this one bring it forward first", err)
	case err != nil:
		return nil, fmt.Errorf("FROM: %w", err)
	}
	return backend, nil
}

// openTo opens the store to copy to, and prints its warnings.
func openTo(ctx context.Context, p *process, a stores.Address) (store.Store, error) {
	var warnings []string
	backend, err := a.Open(ctx, stores.Warnings(func(what, todo string) {
		warnings = append(warnings, what+": "+todo)
	}))
	switch {
	case stores.IsInUse(err):
		return nil, errInUse("TO", err)
	case err != nil:
		return nil, fmt.Errorf("TO: %w", err)
	}
	for _, w := range warnings {
		fmt.Fprintln(p.stderr, "TO: warning:", w)
	}
	return backend, nil
}

func errInUse(what string, err error) error {
	return fmt.Errorf("%s: %w; an SQLite file is for one process: "+
		"stop the gateway, copy, then start it with --store TO", what, err)
}

// statusInService is the exit status of a copy that must be repeated because FROM went on changing.
const statusInService = 3

var errInterrupted = errors.New("interrupted; what was copied stays at TO, and nothing is lost: run it again")

// copyStores opens both stores and copies. TO is opened last: that may create it.
func copyStores(ctx context.Context, p *process, fromURL, toURL stores.Address, mirror bool) (err error) {
	fault := func(err error) error {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return config.OneLine(err)
	}
	from, err := openFrom(ctx, fromURL)
	if err != nil {
		return fault(err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := openTo(ctx, p, toURL)
	if err != nil {
		return fault(err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	return copySessions(ctx, p, from, to, toURL, mirror)
}

// copySessions copies, and prints the result. The error is an [exit] with [statusInService] if FROM went on changing.
func copySessions(ctx context.Context, p *process, from, to store.Store, toURL stores.Address, mirror bool) error {
	shown := terminal.NewProgress(p.stderr, p.getenv)
	result, err := storecopy.Copy(ctx, from, to, storecopy.Options{Mirror: mirror, Now: time.Now, Progress: shown.Show})
	shown.End()
	refused, isRefused := errors.AsType[*storecopy.RefusedError](err)
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case isRefused:
		return explainRefusal(p, refused)
	case err != nil:
		return fmt.Errorf("%w\nWhat was copied stays at TO, and nothing is lost: run it again", err)
	}
	printResult(p, result, toURL)
	if err := warnOfNotices(ctx, p, from); err != nil || result.Settled {
		return err
	}
	return exit{status: statusInService}
}

// explainRefusal prints the sessions that are only at TO, and returns an error that says what this means.
func explainRefusal(p *process, r *storecopy.RefusedError) error {
	for _, s := range r.Extra {
		fmt.Fprintf(p.stdout, "at TO alone: session %s of %s, since %s\n",
			s.Key.Handle(), terminal.Printable(s.Subject), s.Created.Format(time.RFC3339))
	}
	if n := r.Extras - len(r.Extra); n > 0 && len(r.Extra) > 0 {
		fmt.Fprintf(p.stdout, "and %d more\n", n)
	}
	after := "Nothing was changed."
	if r.Changed {
		after = "There were none when the copy began, so people sign in at TO already."
	}
	return fmt.Errorf(`%w. %s
If no gateway uses TO yet, an earlier copy has left this: run it again with --mirror, which makes TO what FROM is.
If one does, TO is in service, and nothing can be copied there: sessions that ended there would live again`, r, after)
}

func printResult(p *process, r storecopy.Result, to stores.Address) {
	for _, row := range []struct {
		n    int
		what string
	}{
		{r.Created, "copied"},
		{r.Updated, "brought up to date"},
		{r.Same, "there already"},
		{r.Ended, "ended at TO: they had ended at FROM"},
		{r.Barred, "not copied: a logout at TO has named them"},
	} {
		if row.n > 0 || row.what == "copied" {
			fmt.Fprintf(p.stdout, "%8d  %s\n", row.n, row.what)
		}
	}
	if !r.Settled {
		fmt.Fprintln(p.stdout, "FROM is in service: it changed while it was copied. "+
			"Before gateways start on TO, stop those on FROM and run this again, with --mirror.")
		return
	}
	fmt.Fprintf(p.stdout, "TO has every session of FROM, as it was there just now: %d.\n", r.Living-r.Barred)
	fmt.Fprintf(p.stdout, "Gateways that start with --store %s need the key file of those on FROM.\n", to)
}

// warnOfNotices prints how many notices of FROM are not delivered yet: they are not copied.
func warnOfNotices(ctx context.Context, p *process, from store.Store) error {
	all, err := from.Stats(ctx)
	if err != nil {
		return fmt.Errorf("the sessions are copied; "+
			"but whether notices are to be delivered from FROM cannot be seen: %w", err)
	}
	pending, dead := 0, 0
	for _, t := range all {
		pending, dead = pending+t.Pending, dead+t.Dead
	}
	if pending > 0 {
		fmt.Fprintf(p.stdout, "warning: %s still to be delivered from FROM, and not copied: keep one gateway running "+
			"with --store FROM, without users, until `curfew notice list` is empty there.\n",
			terminal.Count(pending, "notice"))
	}
	if dead > 0 {
		fmt.Fprintf(p.stdout, "warning: %s given up, to be seen at FROM alone.\n", terminal.Count(dead, "notice"))
	}
	return nil
}
