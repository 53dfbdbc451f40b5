package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.com/curfew/audit"
	"example.com/curfew/cmd/curfew/internal/terminal"
	"example.com/curfew/console"
	"example.com/curfew/internal/wait"
)

const pollEvents = 500 * time.Millisecond

func newEventsCmd(p *process) *cobra.Command {
	var kind, sub, result, provider string
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happens: sign-ins, logout requests accepted and refused, endings",
		Args: cobra.NoArgs,
		Long: `Shows the newest events of all replicas and then follows them, until it is interrupted. With --limit it
shows only that many, and ends. The newest 10,000 events are kept; the file of audit_file has all.`,
		Example: `  curfew events
  curfew events --result refused --limit 20
  curfew events --sub alice --json | jq .check`,
	}
	client := adminFlag(cmd, p)
	limit := cmd.Flags().Int("limit", 0, "show so many of the newest, and end")
	asJSON := cmd.Flags().Bool("json", false, "print JSON, one event a line")
	cmd.Flags().StringVar(&kind, "type", "", "only "+strings.Join(typeNames(), ", "))
	cmd.Flags().StringVar(&sub, "sub", "", "only of one subject")
	cmd.Flags().StringVar(&result, "result", "", "only with this result: ok, refused, unavailable, replayed, …")
	cmd.Flags().StringVar(&provider, "provider", "", "only of one provider")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 0 || *limit > 1000 {
			return exit{2, errors.New("--limit: want 1 to 1000")}
		}
		ask := func(after int64, limit int) (page console.EventPage, err error) {
			pairs := []string{"type", kind, "sub", sub, "result", result, "provider", provider, "limit", strconv.Itoa(limit)}
			if after > 0 {
				pairs = append(pairs, "after", strconv.FormatInt(after, 10))
			}
			return page, client.do(cmd.Context(), http.MethodGet, "/api/events"+query(pairs...), &page)
		}
		show := func(events []audit.Event) error {
			if *asJSON {
				return writeLines(p, events)
			}
			return eventTable(p, events)
		}
		// Where to follow from is asked before what to show, so that nothing falls in between.
		var newest console.EventPage
		path := "/api/events" + query("limit", "1")
		if err := client.do(cmd.Context(), http.MethodGet, path, &newest); err != nil {
			return err
		}
		after := int64(0)
		if len(newest.Events) > 0 {
			after = newest.Events[0].Position
		}
		page, err := ask(0, cmp.Or(*limit, 20))
		if err != nil {
			return err
		}
		slices.Reverse(page.Events)
		if err := show(page.Events); err != nil || *limit > 0 {
			return err
		}
		if n := len(page.Events); n > 0 {
			after = max(after, page.Events[n-1].Position)
		}
		return follow(cmd.Context(), after, func(after int64) (int64, error) {
			page, err := ask(after, 1000)
			if err != nil || len(page.Events) == 0 {
				return max(after, page.Next), err
			}
			if after == 0 { // there was none yet, so these are the first, and the newest of them comes first
				slices.Reverse(page.Events)
				page.Next = page.Events[len(page.Events)-1].Position
			}
			return page.Next, show(page.Events)
		})
	}
	return cmd
}

func typeNames() (names []string) {
	for _, t := range audit.Types() {
		names = append(names, string(t))
	}
	return names
}

// follow calls next again and again, until ctx is done, which is no error.
func follow(ctx context.Context, after int64, next func(int64) (int64, error)) error {
	for {
		at, err := next(after)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if after = at; !wait.Sleep(ctx, pollEvents) {
			return nil
		}
	}
}

// eventTable prints events, one a line.
func eventTable(p *process, events []audit.Event) error {
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	paint := p.painter()
	for _, e := range events {
		status := "ok"
		if e.Result != audit.OK {
			status = "fault"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", e.Time.UTC().Format("2006-01-02 15:04:05"),
			paint.Paint(status, string(e.Type)), cmp.Or(terminal.Printable(e.Provider), "-"), describe(&e))
	}
	return t.Flush()
}

// describe says in a line what happened.
func describe(e *audit.Event) string {
	var b strings.Builder
	add := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s%s", name, shorten(value))
		}
	}
	b.WriteString(terminal.Printable(e.Result))
	add("action=", e.Action)
	add("by ", e.Actor)
	add("of ", e.ActorProvider)
	add("check=", e.Check)
	add("cause=", e.Cause)
	if e.Claimed {
		b.WriteString(" claims:")
	}
	add("sub=", e.Subject)
	add("sid=", e.SID)
	add("session=", e.Session)
	add("from ", e.Address)
	if e.Count > 0 {
		fmt.Fprintf(&b, " ended=%d", e.Count)
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, " (%s)", terminal.Printable(e.Reason))
	}
	if e.Suppressed > 0 {
		fmt.Fprintf(&b, " [%d more like it before]", e.Suppressed)
	}
	return b.String()
}

func newWhyCmd(p *process) *cobra.Command {
	var provider string
	cmd := &cobra.Command{
		Use: "why SUB", Short: "Say whether a person can still get in, and why", Args: takes("SUB"),
		Long: `Says in one line whether this person can still get in, and why, and then what happened to their sessions,
newest first. See docs/on-call.md.

The exit status is 0 if the person cannot get in, 3 if they can.`,
		Example: "  curfew why 248289761001",
	}
	client := adminFlag(cmd, p)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.Flags().StringVar(&provider, "provider", "", "at one provider")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var who console.Person
		path := "/api/person" + query("sub", args[0], "provider", provider)
		if err := client.do(cmd.Context(), http.MethodGet, path, &who); err != nil {
			return err
		}
		if *asJSON {
			e := json.NewEncoder(p.stdout)
			e.SetIndent("", "  ")
			if err := e.Encode(who); err != nil {
				return err
			}
		} else if err := showPerson(p, &who); err != nil {
			return err
		}
		if who.In {
			return exit{status: 3}
		}
		return nil
	}
	return cmd
}

func showPerson(p *process, who *console.Person) error {
	fmt.Fprintf(p.stdout, "%s %s\n", shorten(who.Subject), terminal.Printable(who.Verdict))
	for _, h := range who.Hints {
		fmt.Fprintf(p.stdout, "  → %s\n", terminal.Printable(h))
	}
	if len(who.Sessions) > 0 {
		fmt.Fprintln(p.stdout)
		if err := sessionTable(p, who.Sessions); err != nil {
			return err
		}
	}
	if len(who.Events) > 0 {
		fmt.Fprintln(p.stdout)
		return eventTable(p, who.Events)
	}
	return nil
}

func newPersonCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "person",
		Short: "Export or forget what is kept about one person",
		Long: `What is kept about people, and where, is in docs/privacy.md. The file of audit_file, and log lines, are not
changed by these commands.`,
		Args: cobra.ArbitraryArgs, RunE: chooseCommand,
	}
	client := adminFlag(cmd, p)
	var provider string
	cmd.PersistentFlags().StringVar(&provider, "provider", "", "at this provider; needed if there are several")
	export := &cobra.Command{
		Use: "export SUB", Short: "Print all that is kept about a person, as JSON, without tokens", Args: takes("SUB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all console.Export
			path := "/api/person/export" + query("sub", args[0], "provider", provider)
			if err := client.do(cmd.Context(), http.MethodPost, path, &all); err != nil {
				return err
			}
			e := json.NewEncoder(p.stdout)
			e.SetIndent("", "  ")
			return e.Encode(all)
		},
	}
	forget := &cobra.Command{
		Use: "forget SUB", Short: "End a person's sessions, and delete what is kept about them", Args: takes("SUB"),
	}
	yes := forget.Flags().Bool("yes", false, "do not ask")
	forget.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			err := p.confirm(args[0], "This ends all sessions of the person and deletes what is kept about them")
			if err != nil {
				return err
			}
		}
		var done console.Forgotten
		path := "/api/person/forget" + query("sub", args[0], "confirm", args[0], "provider", provider)
		if err := client.do(cmd.Context(), http.MethodPost, path, &done); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "%s ended, %s and %s deleted\n", terminal.Count(done.Ended, "session"),
			terminal.Count(done.Events, "event"), terminal.Count(done.Notices, "dead notice"))
		if done.Pending > 0 {
			fmt.Fprintf(p.stdout, "%s about the person still to be delivered: run it again once `curfew notice list` has "+
				"none\n", terminal.Count(done.Pending, "notice"))
		}
		return nil
	}
	cmd.AddCommand(export, forget)
	return cmd
}
