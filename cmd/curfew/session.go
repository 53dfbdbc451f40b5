package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.com/curfew/cmd/curfew/internal/terminal"
	"example.com/curfew/console"
)

// query builds the query of a request. Empty values are left out.
func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

func newSessionCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "List, show or end sessions",
		Long: `Lists, shows or ends the sessions of people, on all replicas. It asks the private listener of a running
gateway (--admin).

An ending holds on every replica, as one by the provider does: open streams are closed, refresh tokens are
revoked, apps are notified, and a login that is under way does not bring the session back.`,
		Args: cobra.ArbitraryArgs, RunE: chooseCommand,
	}
	client := adminFlag(cmd, p)
	cmd.AddCommand(newSessionListCmd(p, client), newSessionShowCmd(p, client), newSessionEndCmd(p, client))
	return cmd
}

func newSessionListCmd(p *process, client *adminClient) *cobra.Command {
	var sub, sid, provider, email, address, since, before string
	cmd := &cobra.Command{
		Use: "list", Short: "List sessions", Args: cobra.NoArgs,
		Long: `Lists living sessions. Those of a subject (--sub) or with a sid (--sid) are found by index, however many
sessions there are. For anything else sessions are compared one by one: --scan is how many in all.`,
		Example: `  curfew session list --sub alice
  curfew session list --email alice@example.com --scan 1000000
  curfew session list --since 1h --address 203.0.113.7 --json`,
	}
	limit := cmd.Flags().Int("limit", 100, "how many at most")
	scan := cmd.Flags().Int("scan", 100_000, "how many sessions to compare at most")
	asJSON := cmd.Flags().Bool("json", false, "print JSON, one session a line")
	cmd.Flags().StringVar(&sub, "sub", "", "of one subject")
	cmd.Flags().StringVar(&sid, "sid", "", "with this sid of the provider, now or before")
	cmd.Flags().StringVar(&provider, "provider", "", "of one provider")
	cmd.Flags().StringVar(&email, "email", "", "whose e-mail address is this")
	cmd.Flags().StringVar(&address, "address", "", "that signed in from this address")
	cmd.Flags().StringVar(&since, "since", "", "that signed in since then: 90m for as long ago, or a time")
	cmd.Flags().StringVar(&before, "before", "", "that signed in before then")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 1 || *scan < 1 {
			return exit{2, errors.New("--limit and --scan: want 1 or more")}
		}
		var all []console.Session
		looked, after := 0, ""
		for {
			var page console.SessionPage
			err := client.do(cmd.Context(), http.MethodGet, "/api/sessions"+query("sub", sub, "sid", sid,
				"provider", provider, "email", email, "address", address, "since", since, "before", before,
				"after", after, "limit", strconv.Itoa(min(1000, *limit-len(all)))), &page)
			if err != nil {
				return err
			}
			all, looked, after = append(all, page.Sessions...), looked+page.Looked, page.Next
			if after == "" || len(all) >= *limit || looked >= *scan {
				break
			}
		}
		if *asJSON {
			return writeLines(p, all)
		}
		if err := sessionTable(p, all); err != nil {
			return err
		}
		switch {
		case after != "" && len(all) >= *limit:
			fmt.Fprintln(p.stdout, "… and maybe more: raise --limit")
		case after != "":
			fmt.Fprintf(p.stdout, "… %d sessions were compared, and there are more: raise --scan\n", looked)
		}
		return nil
	}
	return cmd
}

// writeLines prints one line of JSON for each.
func writeLines[T any](p *process, all []T) error {
	e := json.NewEncoder(p.stdout)
	for _, v := range all {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

func sessionTable(p *process, all []console.Session) error {
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tPROVIDER\tSUBJECT\tNAME\tADDRESS\tSIGNED IN\tLAST USED\tENDS")
	now := time.Now()
	for _, s := range all {
		ends := s.Expires
		if s.IdleExpires.Before(ends) {
			ends = s.IdleExpires
		}
		name := terminal.Printable(cmp.Or(s.Email, s.Name))
		if s.Unreadable {
			name = "(cannot be opened)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s ago\t%s ago\tin %s\n", s.ID, s.Provider, shorten(s.Subject), shorten(name),
			s.Address, rough(now.Sub(s.Created)), rough(now.Sub(s.LastSeen)), rough(ends.Sub(now)))
	}
	return t.Flush()
}

// shorten makes text from others fit into a table.
func shorten(text string) string {
	const most = 48
	text = terminal.Printable(text)
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// rough returns a duration in one unit.
func rough(d time.Duration) string {
	switch d = max(0, d); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// idShape is the ID of a session, or its name in log lines, that begins with "-", as one in 64 does.
var idShape = regexp.MustCompile(`^-([\w-]{5}\.[\w-]{12}|[\w-]{11})$`)

// likeFlag is how flags are written.
var likeFlag = regexp.MustCompile(`^-[a-z-]+$`)

// idsLast moves IDs that begin with "-" behind a "--", so that the commands which take IDs do not read them as flags.
func idsLast(root *cobra.Command, args []string) []string {
	cmd, _, err := root.Find(args)
	if err != nil || !strings.Contains(cmd.Use, " ID") {
		return args
	}
	var kept, ids []string
	for i, arg := range args {
		if arg == "--" {
			return slices.Concat(kept, []string{"--"}, ids, args[i+1:])
		}
		value := false // of the flag before it
		if i > 0 {
			name, isFlag := strings.CutPrefix(args[i-1], "--")
			flag := cmd.Flag(name)
			value = isFlag && flag != nil && flag.NoOptDefVal == ""
		}
		if !value && idShape.MatchString(arg) && !likeFlag.MatchString(arg) {
			ids = append(ids, arg)
		} else {
			kept = append(kept, arg)
		}
	}
	if ids == nil {
		return args
	}
	return slices.Concat(kept, []string{"--"}, ids)
}

func newSessionShowCmd(p *process, client *adminClient) *cobra.Command {
	return &cobra.Command{Use: "show ID", Short: "Show a session, by its ID or by the name that log lines have for it",
		Args: takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var s console.Session
			if err := client.do(cmd.Context(), http.MethodGet, "/api/sessions/"+url.PathEscape(args[0]), &s); err != nil {
				return err
			}
			e := json.NewEncoder(p.stdout)
			e.SetIndent("", "  ")
			return e.Encode(s)
		}}
}

func newSessionEndCmd(p *process, client *adminClient) *cobra.Command {
	var sub, sid, provider string
	cmd := &cobra.Command{
		Use:   "end ID... | --sub SUB | --sid SID | --provider NAME --all",
		Short: "End sessions: one, all of a person, or all of a provider",
		Long: `Ends sessions. With an ID it is that sign-in: the session, and those of the same browser at the provider,
which share its sid. With --sub it is all sessions of a person. With --provider and --all it is all sessions of a
provider: the name has to be typed once more, unless --yes is given.

With several providers, --sub and --sid need --provider.`,
		Example: `  curfew session end --sub alice
  curfew session end q1w2e3.AbCdEfGhIjKl
  curfew session end --provider main --all`,
		Args: cobra.ArbitraryArgs,
	}
	all := cmd.Flags().Bool("all", false, "with --provider: all sessions of that provider")
	yes := cmd.Flags().Bool("yes", false, "with --all: do not ask")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.Flags().StringVar(&sub, "sub", "", "all sessions of this subject")
	cmd.Flags().StringVar(&sid, "sid", "", "all sessions with this sid")
	cmd.Flags().StringVar(&provider, "provider", "", "at this provider")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		ways := 0
		for _, given := range []bool{len(ids) > 0, sub != "", sid != "", *all} {
			if given {
				ways++
			}
		}
		if ways != 1 || *all && provider == "" || len(ids) > 0 && provider != "" {
			return exit{2, errors.New("say which: IDs, or --sub, or --sid, or --provider with --all")}
		}
		if slices.Contains(ids, "") {
			return exit{2, errEmptyID}
		}
		var done console.Ending
		var err error
		switch {
		case *all:
			if !*yes {
				if err := p.confirm(provider, "This signs everybody out who came in by "+provider); err != nil {
					return err
				}
			}
			done.Ended, err = endProvider(cmd.Context(), p, client, provider)
		case len(ids) > 0:
			for _, id := range ids {
				var one console.Ending
				path := "/api/sessions/" + url.PathEscape(id) + "/end"
				if err = client.do(cmd.Context(), http.MethodPost, path, &one); err != nil {
					err = fmt.Errorf("session %s: %w", id, err)
					break
				}
				done.Ended += one.Ended
			}
		default:
			path := "/api/sessions/end" + query("sub", sub, "sid", sid, "provider", provider)
			err = client.do(cmd.Context(), http.MethodPost, path, &done)
		}
		if *asJSON && err == nil {
			return json.NewEncoder(p.stdout).Encode(done)
		}
		if err == nil || done.Ended > 0 {
			fmt.Fprintf(p.stdout, "%s ended\n", terminal.Count(done.Ended, "session"))
		}
		return err
	}
	return cmd
}

// endProvider ends all sessions of a provider, step by step.
func endProvider(ctx context.Context, p *process, client *adminClient, name string) (ended int, err error) {
	for after := ""; ; {
		var step console.Ending
		path := "/api/providers/" + url.PathEscape(name) + "/end" + query("confirm", name, "after", after)
		if err := client.do(ctx, http.MethodPost, path, &step); err != nil {
			return ended, fmt.Errorf("not all have ended; run it again: %w", err)
		}
		ended += step.Ended
		if after = step.Next; after == "" {
			return ended, nil
		}
		fmt.Fprintf(p.stderr, "%s ended so far\n", terminal.Count(ended, "session"))
	}
}

// confirm asks to type a word. The error says that it was not typed.
func (p *process) confirm(word, what string) error {
	fmt.Fprintf(p.stderr, "%s. Type %q to go on: ", what, word)
	line, _ := bufio.NewReader(p.stdin).ReadString('\n')
	if strings.TrimRight(line, "\r\n") != word {
		return exit{1, errors.New("not confirmed: nothing was done (--yes does not ask)")}
	}
	return nil
}

// operator returns the name under which the audit record has what this command does.
func (p *process) operator() string {
	name := cmp.Or(p.getenv("CURFEW_OPERATOR"), p.getenv("SUDO_USER"), p.getenv("USER"), p.getenv("LOGNAME"))
	if name == "" { // as in a unit of systemd or a container
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	if host, err := os.Hostname(); err == nil && name != "" && !strings.Contains(name, "@") {
		name += "@" + host
	}
	return name
}
